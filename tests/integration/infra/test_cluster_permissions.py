"""compose/nats.conf and the S3 identities of compose/make-secrets on real servers: who may do what, exactly."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
import pytest
from minio import Minio
from minio.error import S3Error
from nats.aio.client import Client

from jupiter.blobs.s3 import S3Blobs
from jupiter.bus.jetstream import JetStreamBus
from jupiter.config import ClusterConfig
from jupiter.config.sections import NatsSection, S3Section
from jupiter.errors import ConfigError, Unavailable
from jupiter.events import GenerationItem, GenerationRequested, ShardCurated
from jupiter.provision import provision
from jupiter.records import Sampling
from tests.servers import NatsServer, S3Server

pytestmark = pytest.mark.connected

COMPOSE = Path(__file__).parents[3] / "compose"
SERVICES = ("controller", "curator", "evaluator", "generator", "trainer")


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cluster") / "secrets"
    make_secrets(folder)
    return folder


def make_secrets(folder: Path) -> None:
    subprocess.run([sys.executable, "-I", COMPOSE / "make-secrets", folder], check=True)


@pytest.fixture(scope="module")
def url(secrets: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A nats-server with the very permissions of compose/nats.conf, on a free port."""
    directory = tmp_path_factory.mktemp("nats")
    server = NatsServer(directory)
    embedded = (directory / "nats.conf").read_text()
    keys = dict(line.split("=") for line in (secrets / "nats.env").read_text().split())
    authorization = (COMPOSE / "nats.conf").read_text()
    authorization = authorization[authorization.index("authorization {") :]
    for name, value in keys.items():
        authorization = authorization.replace(f"${name}\n", f"{value}\n")
    (directory / "nats.conf").write_text(f"{embedded}\n{authorization}")
    server.start()
    yield server.url
    server.stop()


@pytest.fixture(scope="module")
def endpoint(secrets: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A SeaweedFS that serves the identities of compose/make-secrets."""
    directory = tmp_path_factory.mktemp("s3")
    server = S3Server(directory)
    (directory / "identities.json").write_text((secrets / "s3-identities.json").read_text())
    server.start()
    yield server.endpoint
    server.stop()


def seed(secrets: Path, user: str) -> str:
    return (secrets / f"{user}.nkey").read_text().strip()


@pytest.fixture
async def provisioned(secrets: Path, url: str, endpoint: str) -> ClusterConfig:
    """Streams, bucket and proven identities, made by the real init step."""
    config = ClusterConfig(
        nats=NatsSection(url=url, nkey_seed=seed(secrets, "provision")),
        s3=S3Section(
            endpoint=endpoint, access_key="jupiter-root", secret_key=(secrets / "s3-root").read_text().strip()
        ),
    )
    await provision(config, str(secrets / "s3-identities.json"))
    return config


@asynccontextmanager
async def connected_as(user: str, secrets: Path, url: str) -> AsyncIterator[tuple[Client, list[str]]]:
    """A plain client and what the server has told it off for."""
    refused: list[str] = []

    async def note(error: Exception) -> None:
        refused.append(str(error))

    client = await nats.connect(
        url, nkeys_seed_str=seed(secrets, user), inbox_prefix=f"_INBOX.{user}", error_cb=note, max_reconnect_attempts=1
    )
    try:
        yield client, refused
    finally:
        await client.close()


async def refusals(client: Client, refused: list[str]) -> list[str]:
    """What the server answers to a publish comes before the answer to a ping that follows it."""
    await client.flush()
    await asyncio.sleep(0.05)
    return [text for text in refused if "permissions violation" in text.lower()]


@pytest.mark.parametrize("user", SERVICES)
async def test_only_the_controller_announces_generators(
    user: str, provisioned: ClusterConfig, secrets: Path, url: str
) -> None:
    async with connected_as(user, secrets, url) as (client, refused):
        await client.publish("generators.anything", b"{}")
        assert bool(await refusals(client, refused)) == (user != "controller")


@pytest.mark.parametrize(
    ("user", "subject"),
    [
        ("publisher", "batches.anything"),
        ("publisher", "$JS.API.STREAM.DELETE.DOCUMENTS"),
        ("provision", "documents.anything"),
        ("trainer", "evaluations.anything"),
        ("generator", "shards.anything"),
        ("curator", "$JS.API.STREAM.PURGE.SHARDS"),
        ("curator", "$JS.API.STREAM.UPDATE.SHARDS"),
        ("evaluator", "$JS.API.CONSUMER.MSG.NEXT.GENERATION.generator-python_stdlib"),
        ("curator", "status.anything.trainer.trainer-1"),
    ],
)
async def test_what_is_not_granted_is_refused(
    user: str, subject: str, provisioned: ClusterConfig, secrets: Path, url: str
) -> None:
    async with connected_as(user, secrets, url) as (client, refused):
        await client.publish(subject, b"")
        assert await refusals(client, refused)


async def test_nobody_reads_another_ones_answers(provisioned: ClusterConfig, secrets: Path, url: str) -> None:
    async with connected_as("generator", secrets, url) as (client, refused):
        await client.subscribe("_INBOX.controller.>")
        assert await refusals(client, refused)


async def test_a_publisher_gets_its_document_stored_and_acknowledged(
    provisioned: ClusterConfig, secrets: Path, url: str
) -> None:
    async with connected_as("publisher", secrets, url) as (client, _):
        stored = await client.jetstream().publish("documents.anything", b"{}")
        assert stored.stream == "DOCUMENTS"


async def test_a_service_works_with_its_own_credentials(provisioned: ClusterConfig, secrets: Path, url: str) -> None:
    """The bus's whole use of NATS (streams found, publish, consume, ack, read, canary) under the permissions."""
    domain = "granted"
    section = NatsSection(url=url, manage_streams=False)
    controller, generator = (
        JetStreamBus(section.model_copy(update={"nkey_seed": seed(secrets, name)}), source=f"jupiter/{name}/one")
        for name in ("controller", "generator")
    )
    try:
        await controller.start()
        await generator.start()
        await generator.ready()
        item = GenerationItem(document_id="2" * 64, chunk_index=0, task="explain", audience="a", difficulty="b", seed=1)
        request = GenerationRequested(
            domain=domain, request_id="1" * 64, generator_version=1, items=(item,), sampling=Sampling(), sequence=1
        )
        await controller.publish(request)
        deliveries = generator.consume(f"generation.{domain}", durable="generator", max_ack_pending=1)
        delivery = await anext(deliveries)
        await generator.bury(delivery, service="generator", reason="a test")
        await delivery.ack()
        (letter,) = await controller.dead_letters()
        assert await controller.dead_letter_count() == 1
        assert letter.subject == f"generation.{domain}"
        await controller.drop_dead_letter(letter.sequence)
        assert await controller.backlog(f"generation.{domain}", durable="generator") == 0
        assert await controller.last_sequence(ShardCurated.channel) == 0
    finally:
        await controller.close()
        await generator.close()


async def test_a_wrong_or_missing_seed_is_one_clear_line(provisioned: ClusterConfig, url: str, tmp_path: Path) -> None:
    await asyncio.to_thread(make_secrets, tmp_path)
    stranger = NatsSection(url=url, nkey_seed=seed(tmp_path, "curator"))
    with pytest.raises(Unavailable, match="uthorization"):
        await JetStreamBus(stranger, source="jupiter/curator/one").start()
    with pytest.raises(ConfigError, match="begin with SU"):
        await JetStreamBus(NatsSection(url=url, nkey_seed="nonsense"), source="jupiter/curator/one").start()
    with pytest.raises(ConfigError, match="JUPITER_NATS__NKEY_SEED_FILE"):
        await JetStreamBus(NatsSection(url="nats://192.0.2.1:4222"), source="jupiter/curator/one").start()


def test_no_key_is_no_default_key(endpoint: str) -> None:
    with pytest.raises(ConfigError, match="JUPITER_S3__SECRET_KEY_FILE"):
        S3Blobs(S3Section(endpoint=endpoint))


@pytest.mark.parametrize("user", SERVICES)
async def test_what_an_identity_may_do_with_the_ledger(
    user: str, provisioned: ClusterConfig, secrets: Path, endpoint: str
) -> None:
    client = client_of(user, secrets, endpoint)

    def attempt(action: Any) -> str:
        try:
            action()
        except S3Error as error:
            return str(error.code)
        return "done"

    written = attempt(lambda: client.put_object("jupiter", "ledger/anything/1.json", io.BytesIO(b"1"), 1))
    assert written == ("done" if user == "controller" else "AccessDenied")
    assert attempt(lambda: client.remove_object("jupiter", "ledger/anything/1.json")) == "AccessDenied"
    S3Blobs(
        S3Section(
            endpoint=endpoint, access_key=f"jupiter-{user}", secret_key=(secrets / f"{user}.s3").read_text().strip()
        )
    ).start()


def client_of(user: str, secrets: Path, endpoint: str) -> Minio:
    key = (secrets / f"{user}.s3").read_text().strip()
    return Minio(endpoint, access_key=f"jupiter-{user}", secret_key=key, secure=False, region="us-east-1")


async def test_without_its_policies_in_force_a_cluster_gets_no_streams_to_start_with(
    secrets: Path, provisioned: ClusterConfig, tmp_path: Path
) -> None:
    listed = json.loads((secrets / "s3-identities.json").read_text())
    # A curator that got the root's key: everything works, and it could delete the ledger.
    curator = next(identity for identity in listed["identities"] if identity["name"] == "jupiter-curator")
    curator["credentials"] = listed["identities"][0]["credentials"]
    (tmp_path / "identities.json").write_text(json.dumps(listed))
    fresh = NatsServer(tmp_path)
    fresh.launch()
    try:
        await fresh.until_ready()
        config = provisioned.model_copy(update={"nats": NatsSection(url=fresh.url)})
        with pytest.raises(Unavailable, match="may write ledger/"):
            await provision(config, str(tmp_path / "identities.json"))
        client = await nats.connect(fresh.url)
        assert await client.jetstream().streams_info() == []
        await client.close()
    finally:
        fresh.stop()
