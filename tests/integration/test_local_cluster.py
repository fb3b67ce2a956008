"""The local cluster with real servers and the two services that load no model: start, kill, stop, start again."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from jupiter.config import ClusterConfig
from jupiter.errors import ConfigError, Conflict, Unavailable
from jupiter.events import DocumentAccepted
from jupiter.local.cluster import LocalCluster
from jupiter.local.endpoints import read_endpoints

pytestmark = pytest.mark.connected

DOMAIN = "kitchen"
WAIT_S = 60
LISTENING, LOOPBACK = "0A", "0100007F"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a domain of its own, as a user's checkout has."""
    domains = tmp_path / "config" / "domains"
    domains.mkdir(parents=True)
    (domains / f"{DOMAIN}.yaml").write_text("description: Cooking\ntasks: [{task: restate}]\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config_of(place: Path, *, port: int = 0) -> ClusterConfig:
    return ClusterConfig.model_validate({"domain": DOMAIN, "data_dir": place / "data", "controller": {"port": port}})


def cluster_of(place: Path, *services: str) -> LocalCluster:
    return LocalCluster(config_of(place), services=services)


def listening() -> set[tuple[str, int]]:
    """Return the address (as the kernel writes it) and the port of every listening socket of this machine."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            if state == LISTENING:
                address, port = local.split(":")
                found.add((address, int(port, 16)))
    return found


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - the condition is another process's doing
            await asyncio.sleep(0.05)


def document(text: str) -> bytes:
    return json.dumps({"text": text, "source": "urn:test"}).encode()


async def jupiter(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user would."""
    command = [sys.executable, "-m", "jupiter.cli", "--set", f"data_dir={place / 'data'}", "--set", f"domain={DOMAIN}"]
    return await asyncio.to_thread(subprocess.run, [*command, *arguments], capture_output=True, text=True, cwd=place)


async def test_killed_servers_and_services_come_back_and_the_documents_are_all_there(place: Path) -> None:
    async with cluster_of(place, "controller", "curator") as cluster:
        await cluster.start()
        victims = ("nats", "s3", "controller", "curator")
        for number, name in enumerate(victims):
            process = cluster.processes[name]
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            await until(lambda process=process: process.restarts == 1 and process.state == "ready")  # type: ignore[misc]
            await cluster.bus.publish_raw(f"documents.{DOMAIN}", document(f"Soup number {number} needs salt."))
            await cluster.wait_for(
                lambda seen, number=number: len(seen.all(DocumentAccepted)) == number + 1,  # type: ignore[misc]
                what=f"document {number}",
                timeout_s=WAIT_S,
            )
        said = [notice.text for notice in cluster.events if notice.what == "died"]
        assert [text.split()[0] for text in said] == list(victims)
        assert all("SIGKILL" in text for text in said)


async def test_a_second_start_finds_ports_secret_and_data_of_the_first(place: Path) -> None:
    async with cluster_of(place) as first:
        await first.start()
        await asyncio.to_thread(first.blobs.put, "kept", b"bytes")
        before = read_endpoints(place / "data")
    assert before is not None
    async with cluster_of(place) as second:
        await second.start()
        assert await asyncio.to_thread(second.blobs.get, "kept") == b"bytes"
        after = read_endpoints(place / "data")
    assert after is not None
    assert after.ports == before.ports
    for secret in ("credentials.json", "s3/identities.json"):
        assert stat.S_IMODE((place / "data" / secret).stat().st_mode) == 0o600


async def test_data_stay_when_another_program_took_the_ports(place: Path) -> None:
    async with cluster_of(place) as first:
        await first.start()
        await asyncio.to_thread(first.blobs.put, "kept", b"bytes")
    (place / "data" / "endpoints.json").unlink()
    async with cluster_of(place) as second:
        await second.start()
        assert await asyncio.to_thread(second.blobs.get, "kept") == b"bytes"
        await asyncio.to_thread(second.blobs.put, "more", b"bytes")


async def test_the_configured_port_is_taken_at_every_start_and_a_fallback_is_said(place: Path) -> None:
    with socket.socket() as program:
        program.bind(("127.0.0.1", 0))
        program.listen()
        port = int(program.getsockname()[1])
        async with LocalCluster(config_of(place, port=port), services=()) as beside:
            await beside.start()
            other = beside.config.controller.port
            assert other != port
            (said,) = [notice.text for notice in beside.events if notice.name == "api"]
            assert said == f"controller.port {port} is in use by another program; the API listens on {other}"
    async with LocalCluster(config_of(place, port=port), services=()) as alone:
        await alone.start()
        assert alone.config.controller.port == port
        assert not [notice for notice in alone.events if notice.name == "api"]


async def test_a_second_supervisor_is_refused_while_the_first_runs(place: Path) -> None:
    async with cluster_of(place) as first:
        await first.start()
        with pytest.raises(Conflict, match=f"process {os.getpid()}"):
            await cluster_of(place).start()


async def test_everything_listens_on_the_loopback_address_only(place: Path) -> None:
    async with cluster_of(place, "controller") as cluster:
        await cluster.start()
        endpoints = read_endpoints(place / "data")
        assert endpoints is not None
        addresses = {address for address, port in listening() if port in endpoints.ports.values()}
    assert addresses == {LOOPBACK}


async def test_a_service_that_cannot_start_is_named_with_its_log_and_everything_is_stopped(place: Path) -> None:
    environment = {"curator": {"JUPITER_CURATOR__REAL_RATIO": "0.9"}}
    cluster = LocalCluster(config_of(place), services=("curator",), environment=environment)
    with pytest.raises(Unavailable, match=r"curator does not start[\s\S]*real_ratio"):
        async with cluster:
            await cluster.start()
    assert {process.state for process in cluster.processes.values()} == {"stopped"}


async def test_an_unknown_domain_is_refused_before_anything_starts(place: Path) -> None:
    config = config_of(place).model_copy(update={"domain": "kitchn"})
    async with LocalCluster(config) as cluster:
        with pytest.raises(ConfigError, match="did you mean kitchen"):
            await cluster.start()
        assert not cluster.processes


async def test_the_commands_find_the_running_system_by_themselves(place: Path) -> None:
    (place / "recipes").mkdir()
    for name in ("soup", "bread"):
        (place / "recipes" / f"{name}.md").write_text(
            f"# {name}\n\nA recipe for {name}: take water, and wait for an hour.\n"
        )
    (place / "recipes" / "bad.txt").write_bytes(b"\xff\xfe")
    async with cluster_of(place, "controller", "curator") as cluster:
        await cluster.start()
        published = await jupiter(place, "publish", "recipes", "--domain", DOMAIN, "--json")
        assert published.returncode == 1, published.stderr
        assert json.loads(published.stdout)["published"] == 2
        await cluster.wait_for(
            lambda seen: len(seen.all(DocumentAccepted)) == 2, what="both documents", timeout_s=WAIT_S
        )
        again = json.loads((await jupiter(place, "publish", "recipes", "--json")).stdout)
        assert (again["published"], again["duplicates"]) == (0, 2)
        wrong = await jupiter(place, "publish", "recipes", "--domain", "physics")
        assert "works on the domain 'kitchen', not on 'physics'" in wrong.stderr

        status = await jupiter(place, "status", "--once")
        assert "2 documents" in status.stdout
        assert json.loads((await jupiter(place, "status", "--json")).stdout)["domain"] == DOMAIN
        assert "no evaluation yet" in (await jupiter(place, "evaluations")).stdout
        assert "no sample yet" in (await jupiter(place, "samples")).stdout
        assert "there is no generator yet" in (await jupiter(place, "rollback")).stderr
        assert (await jupiter(place, "history")).returncode == 0
        await _dead_letters(cluster, place)


async def _dead_letters(cluster: LocalCluster, place: Path) -> None:
    await cluster.bus.publish_raw(f"documents.{DOMAIN}", b"{nonsense")
    async with httpx.AsyncClient(trust_env=False) as client, asyncio.timeout(WAIT_S):
        while not (await client.get(f"{cluster.api_url}/v1/dead-letters")).json():  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    listed = await jupiter(place, "dead-letters", "list", "--json")
    [letter] = json.loads(listed.stdout)
    assert letter["subject"] == f"documents.{DOMAIN}"
    assert "nonsense" in (await jupiter(place, "dead-letters", "list")).stdout
    number = str(letter["sequence"])
    assert (await jupiter(place, "dead-letters", "drop", number)).returncode == 0
    gone = await jupiter(place, "dead-letters", "replay", number)
    assert gone.returncode == 1
    assert f"there is no dead letter {number}" in gone.stderr
