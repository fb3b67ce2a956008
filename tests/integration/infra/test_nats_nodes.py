"""compose/nats-cluster.yaml as three nodes start it: one password, the same permissions, every stream three times."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import nats
import pytest
import yaml

from jupiter.bus.jetstream import JetStreamBus
from jupiter.config.sections import NatsSection

pytestmark = pytest.mark.connected

COMPOSE = Path(__file__).parents[3] / "compose"
# Addresses of the loopback that nobody else here listens on: the ports are those of the files.
NODES = {f"nats-{number}": f"127.62.22.{number}" for number in (1, 2, 3)}
STRANGER = "127.62.22.9"
START_S_MAX = 60.0


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cluster") / "secrets"
    subprocess.run([sys.executable, "-I", COMPOSE / "make-secrets", folder], check=True)
    return folder


@contextmanager
def node(name: str, address: str, *, directory: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run the file's own command; of the configuration only where it listens and where it stores is another."""
    directory.mkdir()
    for file in ("nats.conf", "nats-cluster.conf"):
        text = (COMPOSE / file).read_text()
        for there, here in (
            ("listen: 0.0.0.0", f"listen: {address}"),
            ("http: 127.0.0.1", f"http: {address}"),
            ("store_dir: /data", f"store_dir: {directory / 'data'}"),
        ):
            text = text.replace(there, here)
        (directory / file).write_text(text)
    shell, flag, script = yaml.safe_load((COMPOSE / "nats-cluster.yaml").read_text())["services"]["nats"]["command"]
    script = script.replace("$$", "$").replace("/etc/nats/", f"{directory}/")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    peers = {"NATS_SERVER_NAME": name, "NATS_PEERS": " ".join(NODES.values())}
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [shell, flag, script], env={**environment, **peers, "PATH": path}, stdout=log, stderr=log
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(10)


def answers(address: str, path: str) -> dict[str, object]:
    """Return a server's monitoring page, empty where it does not say ok."""
    try:
        with urllib.request.urlopen(f"http://{address}:8222/{path}", timeout=5) as answer:
            found: dict[str, object] = json.loads(answer.read())
            return found
    except OSError:
        return {}


def wait_until_ready(address: str) -> None:
    deadline = time.monotonic() + START_S_MAX
    # What the files' health check asks.
    while answers(address, "healthz?js-enabled-only=true").get("status") != "ok":
        assert time.monotonic() < deadline, f"{address} is not ready"
        time.sleep(0.1)


@pytest.fixture
def cluster(secrets: Path, tmp_path: Path) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    environment = dict(line.split("=") for line in (secrets / "nats.env").read_text().split())
    with ExitStack() as running:
        yield {
            name: running.enter_context(node(name, address, directory=tmp_path / name, environment=environment))
            for name, address in NODES.items()
        }


def seed(secrets: Path, user: str) -> str:
    return (secrets / f"{user}.nkey").read_text().strip()


async def provisioned(secrets: Path, url: str) -> None:
    """Make the streams as the init step does, once the servers have found each other."""
    section = NatsSection(url=url, nkey_seed=seed(secrets, "provision"), replicas=len(NODES))
    bus = JetStreamBus(section, source="jupiter/provision/provision")
    try:
        await bus.start()
    finally:
        await bus.close()


async def test_a_document_survives_the_server_that_took_it(
    cluster: dict[str, subprocess.Popen[bytes]], secrets: Path
) -> None:
    for address in NODES.values():
        await asyncio.to_thread(wait_until_ready, address)
    url = ",".join(f"nats://{address}:4222" for address in NODES.values())
    await provisioned(secrets, url)
    first, *others = NODES
    client = await nats.connect(
        [f"nats://{NODES[first]}:4222"], nkeys_seed_str=seed(secrets, "publisher"), inbox_prefix="_INBOX.publisher"
    )
    assert (await client.jetstream().publish("documents.anything", b"{}")).seq == 1
    # Container addresses would be no use to anybody.
    assert client.discovered_servers == []
    await client.close()
    cluster[first].kill()
    client = await nats.connect(
        [f"nats://{NODES[name]}:4222" for name in others],
        nkeys_seed_str=seed(secrets, "publisher"),
        inbox_prefix="_INBOX.publisher",
    )
    try:
        async with asyncio.timeout(START_S_MAX):
            while True:
                try:
                    assert (await client.jetstream().publish("documents.anything", b"[]")).seq == 2
                    break
                except nats.errors.Error:  # until the two have agreed on a leader
                    await asyncio.sleep(0.5)
    finally:
        await client.close()


def test_a_server_without_the_password_does_not_get_in(
    cluster: dict[str, subprocess.Popen[bytes]], secrets: Path, tmp_path: Path
) -> None:
    environment = dict(line.split("=") for line in (secrets / "nats.env").read_text().split())
    environment["NATS_ROUTE_PASSWORD"] = "guessed"
    for address in NODES.values():
        wait_until_ready(address)
    with node("stranger", STRANGER, directory=tmp_path / "stranger", environment=environment):
        deadline = time.monotonic() + START_S_MAX
        while "Authorization Violation" not in (tmp_path / "stranger" / "log").read_text():
            assert time.monotonic() < deadline, (tmp_path / "stranger" / "log").read_text()
            time.sleep(0.1)
        assert answers(STRANGER, "routez")["num_routes"] == 0
        routes: Any = answers(NODES["nats-1"], "routez")["routes"]
        assert {route["remote_name"] for route in routes} == {"nats-2", "nats-3"}
