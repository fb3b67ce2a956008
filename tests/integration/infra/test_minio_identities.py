"""The init step on a server with MinIO's admin API, the default store of the compose files: it makes the identities."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from minio import Minio
from minio.credentials.credentials import Credentials
from minio.error import S3Error

from jupiter.blobs.s3 import S3Blobs
from jupiter.config import ClusterConfig
from jupiter.config.sections import NatsSection, S3Section
from jupiter.errors import Unavailable
from jupiter.provision import provision
from tests.minio_server import Admin, minio_server
from tests.servers import NatsServer, S3Server

pytestmark = pytest.mark.connected

SCRIPT = Path(__file__).parents[3] / "compose" / "make-secrets"
SERVICES = ("controller", "curator", "evaluator", "generator", "trainer")


def make_secrets(folder: Path) -> None:
    subprocess.run([sys.executable, "-I", SCRIPT, folder], check=True)


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    make_secrets(tmp_path / "secrets")
    return tmp_path / "secrets"


@pytest.fixture
def server(secrets: Path, tmp_path: Path) -> Iterator[tuple[str, Admin]]:
    """A server as the compose file starts it: it knows its root, and nobody else."""
    (tmp_path / "s3").mkdir()
    store = S3Server(tmp_path / "s3")
    root = json.loads((secrets / "s3-identities.json").read_text())["identities"][0]
    (tmp_path / "s3" / "identities.json").write_text(json.dumps({"identities": [root]}))
    store.start()
    try:
        with minio_server(Credentials("jupiter-root", secret(secrets, "s3-root")), objects=store.endpoint) as running:
            yield running
    finally:
        store.stop()


@pytest.fixture
def config(server: tuple[str, Admin], secrets: Path, nats_server: NatsServer) -> ClusterConfig:
    section = S3Section(endpoint=server[0], access_key="jupiter-root", secret_key=secret(secrets, "s3-root"))
    return ClusterConfig(nats=NatsSection(url=nats_server.url), s3=section)


def secret(secrets: Path, name: str) -> str:
    return (secrets / name).read_text().strip()


def attempt(user: str, secrets: Path, endpoint: str, verb: str, key: str) -> str:
    client = Minio(
        endpoint,
        access_key=f"jupiter-{user}",
        secret_key=secret(secrets, f"{user}.s3"),
        secure=False,
        region="us-east-1",
    )
    try:
        if verb == "write":
            client.put_object("jupiter", key, io.BytesIO(b"1"), 1)
        else:
            client.remove_object("jupiter", key)
    except S3Error as error:
        return str(error.code)
    return "done"


async def test_every_service_gets_a_user_that_may_do_its_work_and_no_more(
    config: ClusterConfig, secrets: Path, server: tuple[str, Admin]
) -> None:
    endpoint, admin = server
    await provision(config, str(secrets / "s3-identities.json"))
    assert admin.attached == {f"jupiter-{user}": [f"jupiter-{user}"] for user in SERVICES}
    ledger = "ledger/anything/1.json"
    own = {"controller": ledger, "curator": "shards/a/b", "evaluator": "evaluations/a/b", "generator": "batches/a/b"}
    for user in SERVICES:
        assert attempt(user, secrets, endpoint, "write", own.get(user, "checkpoints/a/b")) == "done"
        assert attempt(user, secrets, endpoint, "write", ledger) == ("done" if user == "controller" else "AccessDenied")
        assert attempt(user, secrets, endpoint, "delete", ledger) == "AccessDenied"
        section = config.s3.model_copy(
            update={"access_key": f"jupiter-{user}", "secret_key": secret(secrets, f"{user}.s3")}
        )
        S3Blobs(section).start()


async def test_a_key_that_was_changed_is_in_force_after_the_next_start(
    config: ClusterConfig, secrets: Path, server: tuple[str, Admin]
) -> None:
    await provision(config, str(secrets / "s3-identities.json"))
    old = secret(secrets, "curator.s3")
    (secrets / "curator.s3").unlink()
    make_secrets(secrets)
    assert secret(secrets, "curator.s3") != old
    await provision(config, str(secrets / "s3-identities.json"))
    assert server[1].users["jupiter-curator"] == secret(secrets, "curator.s3")


async def test_a_wrong_root_key_stops_the_start_with_one_clear_line(config: ClusterConfig, secrets: Path) -> None:
    wrong = config.model_copy(update={"s3": config.s3.model_copy(update={"secret_key": "not-the-key-of-the-root"})})
    with pytest.raises(Unavailable, match=r"check s3\.access_key and s3\.secret_key"):
        await provision(wrong, str(secrets / "s3-identities.json"))


async def test_policies_that_are_not_in_force_stop_the_start(
    config: ClusterConfig, secrets: Path, server: tuple[str, Admin], tmp_path: Path
) -> None:
    """A user who gets the controller's policy beside its own may write the ledger."""
    listed = json.loads((secrets / "s3-identities.json").read_text())
    trainer = next(identity for identity in listed["identities"] if identity["name"] == "jupiter-trainer")
    trainer["policyNames"] = ["jupiter-trainer", "jupiter-controller"]
    (tmp_path / "identities.json").write_text(json.dumps(listed))
    with pytest.raises(Unavailable, match="jupiter-trainer may write ledger/"):
        await provision(config, str(tmp_path / "identities.json"))
    assert server[1].attached["jupiter-trainer"] == ["jupiter-trainer", "jupiter-controller"]


async def test_a_policy_that_the_server_refuses_stops_the_start(
    config: ClusterConfig, secrets: Path, tmp_path: Path
) -> None:
    listed = json.loads((secrets / "s3-identities.json").read_text())
    policy = json.loads(listed["policies"][0]["content"])
    policy["Statement"][0]["Resource"] = ["arn:aws:s3:::jupiter/*"]
    listed["policies"][0]["content"] = json.dumps(policy)
    (tmp_path / "identities.json").write_text(json.dumps(listed))
    with pytest.raises(Unavailable, match=r"made no identity.*MalformedPolicy"):
        await provision(config, str(tmp_path / "identities.json"))
