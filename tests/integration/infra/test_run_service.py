"""A service as a process: its pages, its logs, its end, and being killed after each step of the commit rule."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from jupiter import keys, manifests
from jupiter.blobs.s3 import S3Blobs
from jupiter.bus.jetstream import JetStreamBus
from jupiter.config import ClusterConfig
from jupiter.config.loading import settings_as_environment
from jupiter.events import CheckpointSaved, ServiceStatus
from tests.integration.infra.bus_contract import shard
from tests.integration.infra.echo_service import BREAK
from tests.servers import NatsServer, S3Server

pytestmark = pytest.mark.connected

ROOT = Path(__file__).parents[3]
# Generous: five Python processes may share the cores with everything else that runs here.
WAIT_S = 100.0


class EchoProcess:
    """The echo service in a process of its own."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self._environment, self._log = environment, log
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, **extra: str) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.integration.infra.echo_service"],
                cwd=ROOT,
                env={**os.environ, **self._environment, **extra},
                stdout=log,
                stderr=log,
            )

    def logs(self) -> list[dict[str, str]]:
        return [json.loads(line) for line in self._log.read_text().splitlines()]

    async def ended(self) -> int:
        assert self.process is not None
        return await asyncio.to_thread(self.process.wait, WAIT_S)

    async def logged(self, text: str) -> dict[str, str]:
        """Wait for a line that holds the text."""
        async with asyncio.timeout(WAIT_S):
            while True:
                found = [line for line in self.logs() if text in line["message"]]
                if found:
                    return found[-1]
                await asyncio.sleep(0.02)

    async def url(self) -> str:
        """Return where its pages are."""
        return f"http://127.0.0.1:{(await self.logged('telemetry listens'))['port']}"


@pytest.fixture
def echo(
    nats_server: NatsServer, s3_server: S3Server, blobs: S3Blobs, domain: str, tmp_path: Path
) -> Iterator[EchoProcess]:
    config = ClusterConfig(
        domain=domain,
        instance="echo-1",
        nats=nats_server.section(ack_wait_s=1),
        s3=s3_server.section(bucket=blobs.bucket),
    )
    process = EchoProcess(settings_as_environment(config), tmp_path / "echo.log")
    yield process
    if process.process is not None and process.process.poll() is None:
        process.process.kill()
        process.process.wait()


async def checkpoints(bus: JetStreamBus, domain: str, count: int) -> list[CheckpointSaved]:
    """Wait for `count` announcements, then return all that there are."""
    async with asyncio.timeout(WAIT_S):
        while True:
            events = [entry.event async for entry in bus.read(f"checkpoints.{domain}", follow=False)]
            if len(events) >= count:
                return [event for event in events if isinstance(event, CheckpointSaved)]
            await asyncio.sleep(0.05)


async def test_a_service_answers_works_and_drains(echo: EchoProcess, bus: JetStreamBus, domain: str) -> None:
    echo.start()
    url = await echo.url()
    await echo.logged("echo is up")
    await bus.publish(shard(domain, 1))
    await checkpoints(bus, domain, 1)
    async with httpx.AsyncClient(trust_env=False) as client:
        assert (await client.get(f"{url}/healthz")).json() == {"status": "ok"}
        assert (await client.get(f"{url}/readyz")).json() == {"status": "ok"}
        metrics = (await client.get(f"{url}/metrics")).text
    assert 'jupiter_published_total{event="jupiter.CheckpointSaved"} 1.0' in metrics
    assert 'jupiter_handler_seconds_count{event="jupiter.ShardCurated"} 1.0' in metrics
    assert "process_cpu_seconds_total" in metrics
    statuses = [entry.event async for entry in bus.read(f"status.{domain}.>", follow=False)]
    assert [(event.instance, event.stage) for event in statuses if isinstance(event, ServiceStatus)] == [
        ("echo-1", "idle")
    ]
    assert echo.process is not None
    echo.process.send_signal(signal.SIGTERM)
    assert await echo.ended() == 0
    first = echo.logs()[0]
    assert (first["service"], first["instance"], first["domain"]) == ("echo", "echo-1", domain)


async def test_a_service_that_breaks_ends_with_an_error(echo: EchoProcess, bus: JetStreamBus, domain: str) -> None:
    echo.start()
    await bus.publish(shard(domain, BREAK))
    assert await echo.ended() == 1
    (line,) = [line for line in echo.logs() if line["level"] == "ERROR"]
    assert line["message"] == "echo ends on an unexpected error"
    assert "the loss is not a number" in line["error"]


async def test_a_service_that_is_not_ready_says_why(echo: EchoProcess) -> None:
    echo.start(JUPITER_S3__SECRET_KEY="wrong")
    url = await echo.url()
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"{url}/readyz")
    assert answer.status_code == 503
    assert answer.json()["reason"] == "the service is still starting"
    waiting = await echo.logged("waiting for the servers")
    assert "check s3.access_key and s3.secret_key" in waiting["message"]


@pytest.mark.parametrize("step", ["blobs", "manifest", "event", "ack"])
async def test_a_service_killed_after_any_step_loses_and_doubles_nothing(
    echo: EchoProcess, bus: JetStreamBus, blobs: S3Blobs, domain: str, tmp_path: Path, step: str
) -> None:
    await bus.publish(shard(domain, 1))
    echo.start(JUPITER_CRASH_AFTER=step, JUPITER_CRASH_MARKER=str(tmp_path / "crashed"))
    assert await echo.ended() == -signal.SIGKILL
    echo.start(JUPITER_CRASH_AFTER=step, JUPITER_CRASH_MARKER=str(tmp_path / "crashed"))
    await bus.publish(shard(domain, 2))
    events = await checkpoints(bus, domain, 2)
    assert [event.step for event in events] == [1, 2]
    for event in events:
        committed = manifests.read(blobs, event.manifest_key, sha256=event.manifest_sha256)
        assert committed.manifest.details["step"] == event.step
    found = [info.key for info in blobs.list(f"checkpoints/{domain}/") if info.key.endswith("manifest.json")]
    assert found == [keys.manifest_key(keys.checkpoint_prefix(domain, "run", step)) for step in (1, 2)]
