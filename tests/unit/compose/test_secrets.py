"""compose/make-secrets: keys that the libraries accept, made once."""

from __future__ import annotations

import hashlib
import json
import stat
import subprocess
import sys
from pathlib import Path

import httpx
import nkeys
import pytest

from jupiter.config.sections import ControllerSection, CuratorSection
from jupiter.controller.api.access import check_reachable

SCRIPT = Path(__file__).parents[3] / "compose" / "make-secrets"


def make(folder: Path, *options: str) -> dict[str, str]:
    # The system's own interpreter, isolated: the script may need nothing of ours.
    done = subprocess.run([sys.executable, "-I", SCRIPT, folder, *options], check=True, capture_output=True, text=True)
    assert done.stdout + done.stderr == ""
    return {path.name: path.read_text().strip() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("make") / "secrets"
    make(folder)
    return folder


def test_a_second_run_changes_nothing(folder: Path) -> None:
    before = {path.name: path.read_text().strip() for path in folder.iterdir()}
    assert make(folder) == before


def test_only_the_owner_may_enter_the_folder(folder: Path) -> None:
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_the_servers_public_keys_belong_to_the_seeds(folder: Path) -> None:
    lines = dict(line.split("=") for line in (folder / "nats.env").read_text().split())
    assert len(set(lines.values())) == len(lines)
    users = [name.removeprefix("NATS_").lower() for name in lines.keys() - {"NATS_SERVER_NAME", "NATS_ROUTE_PASSWORD"}]
    assert len(users) == 7
    for user in users:
        pair = nkeys.from_seed(bytearray((folder / f"{user}.nkey").read_text().strip().encode()))
        assert pair.public_key.decode() == lines[f"NATS_{user.upper()}"]


ROUTES = '[ "nats://route:a-password@10.0.0.1:6222", "nats://route:a-password@10.0.0.2:6222",  ]'


@pytest.mark.parametrize(
    ("name", "variables"),
    [("nats.conf", {}), ("nats-cluster.conf", {"NATS_SERVER_NAME": "nats-2", "NATS_ROUTES": ROUTES})],
    ids=["alone", "one of several"],
)
def test_a_nats_server_accepts_its_configuration_with_them(name: str, variables: dict[str, str], folder: Path) -> None:
    made = dict(line.split("=") for line in (folder / "nats.env").read_text().split())
    done = subprocess.run(
        [Path(sys.executable).with_name("nats-server"), "-t", "-c", SCRIPT.with_name(name)],
        env={**made, **variables},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_the_controller_gets_digests_of_the_api_keys(folder: Path) -> None:
    callers = check_reachable(ControllerSection(host="0.0.0.0", api_keys=(folder / "api-keys").read_text()))  # noqa: S104
    assert {caller.scope for caller in callers} == {"read", "operate", "admin"}
    for caller in callers:
        key = (folder / f"api-key-{caller.scope}").read_text().strip()
        assert caller.sha256 == hashlib.sha256(key.encode()).hexdigest()
        assert key not in (folder / "api-keys").read_text()


def test_the_curators_address_of_redis_has_the_password_of_that_redis(folder: Path) -> None:
    address = CuratorSection(redis_url=(folder / "redis-url").read_text().strip()).redis_url
    assert httpx.URL(address).password == (folder / "redis-password").read_text().strip()


def test_no_policy_lets_anybody_delete_the_ledger_and_one_lets_write_it(folder: Path) -> None:
    listed = json.loads((folder / "s3-identities.json").read_text())
    allowed: dict[str, list[str]] = {"s3:PutObject": [], "s3:DeleteObject": []}
    for policy in listed["policies"]:
        for statement in json.loads(policy["content"])["Statement"]:
            for action in set(statement["Action"]) & set(allowed):
                if any(
                    "/ledger/" in resource or resource.endswith(":::jupiter/*") for resource in statement["Resource"]
                ):
                    allowed[action].append(policy["name"])
    assert allowed == {"s3:PutObject": ["jupiter-controller"], "s3:DeleteObject": []}


def test_a_shared_key_is_the_root_key_also_where_services_had_their_own(tmp_path: Path) -> None:
    before = make(tmp_path / "shared")
    made = make(tmp_path / "shared", "--shared-s3-key")
    assert before["trainer.s3"] != made["trainer.s3"] == made["s3-root"] == before["s3-root"]
