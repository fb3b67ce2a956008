"""The controller as a real process on real servers: killed after each step of the commit rule, and restarted."""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import yaml

from jupiter.blobs.s3 import S3Blobs
from jupiter.bus.jetstream import JetStreamBus
from jupiter.config.loading import settings_as_environment
from jupiter.ledger import flips, read_ledger
from jupiter.orchestrator import SelfImprover
from jupiter.service import running
from tests.servers import NatsServer, S3Server
from tests.unit.controller.cycle import Cycle

pytestmark = pytest.mark.connected

WAIT_S = 40.0


async def flipped(cycle: Cycle, count: int) -> None:
    """Wait until the ledger has so many flips."""
    deadline = time.monotonic() + WAIT_S
    while len(flips(await asyncio.to_thread(read_ledger, cycle.blobs, cycle.name))) < count:
        assert time.monotonic() < deadline, f"no {count} flips within {WAIT_S} s"
        await asyncio.sleep(0.05)


async def test_promotion_and_rollback_on_real_servers(
    bus: JetStreamBus, blobs: S3Blobs, domain: str, tmp_path: Path
) -> None:
    cycle = Cycle(tmp_path, bus=bus, blobs=blobs, name=domain)
    runtime = cycle.runtime()
    async with running(runtime, await cycle.parts(runtime)):
        await cycle.import_base()
        await flipped(cycle, 1)
        await cycle.load(cycle.ledger()[0])
        await cycle.freeze_benchmark()
        await cycle.publish_documents(6)
        await cycle.answer(await cycle.evaluate(await cycle.save_checkpoint(100)), wait_s=WAIT_S)
        await flipped(cycle, 2)
        await cycle.say("generator", instance="0")
        await cycle.load(cycle.ledger()[-1], failed="golden outputs differ")
        await flipped(cycle, 3)
    assert [entry.action for entry in cycle.ledger()] == ["registered", "opened", "promoted", "rolled_back"]
    requests = await cycle.events("generation")
    assert len({event.event_id for event in requests}) == len(requests) >= 4


@contextmanager
def controller_process(cycle: Cycle, directory: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m jupiter.controller` in `directory`; ended when the block ends."""
    settings = settings_as_environment(cycle.config)
    with (directory / "controller.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupiter.controller"],
            cwd=directory,
            env={**os.environ, **settings, **environment},
            stdout=log,
            stderr=log,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(timeout=WAIT_S)


@pytest.mark.parametrize("step", ["blobs", "manifest", "event", "ack"])
async def test_killed_after_each_step_it_promotes_once(
    step: str, nats_server: NatsServer, s3_server: S3Server, bus: JetStreamBus, domain: str, tmp_path: Path
) -> None:
    cycle = _on_servers(nats_server, s3_server, bus, domain, tmp_path)
    marker = tmp_path / "killed"
    crash = {"JUPITER_CRASH_AFTER": step, "JUPITER_CRASH_MARKER": str(marker)}
    # The base is registered by a controller that lives, so that the kill falls into judging and promoting.
    with controller_process(cycle, tmp_path):
        await cycle.import_base()
        await flipped(cycle, 1)
    report = await cycle.evaluate(await cycle.save_checkpoint(100))
    # The other services work on, whether the controller lives or not.
    answering = asyncio.create_task(cycle.answer(report, wait_s=3 * WAIT_S))
    with controller_process(cycle, tmp_path, **crash) as process:
        killed = await asyncio.to_thread(process.wait, WAIT_S)
    assert killed == -9
    assert marker.exists()
    with controller_process(cycle, tmp_path, **crash):
        await flipped(cycle, 2)
    await answering
    await _whole_once(cycle)


async def _whole_once(cycle: Cycle) -> None:
    """What every death must leave: one opening, one verdict, one promotion, each told once, no dead letters."""
    ledger = cycle.ledger()
    assert [entry.action for entry in ledger] == ["registered", "opened", "promoted"]
    deadline = time.monotonic() + WAIT_S
    assert ledger[-1].evaluation_id is not None
    for channel in ("verdicts", "confirmations"):
        told = await cycle.events(channel)
        assert len({event.event_id for event in told}) == len(told) == 1
    announced = await cycle.events("generators")
    while len(announced) < 2 and time.monotonic() < deadline:
        announced = await cycle.events("generators")
    assert len({event.event_id for event in announced}) == len(announced) <= 2
    letters = await cycle.bus.dead_letters(limit=1000)
    assert [letter for letter in letters if letter.subject.endswith(cycle.name)] == []


async def test_api_of_the_process(
    nats_server: NatsServer, s3_server: S3Server, bus: JetStreamBus, domain: str, tmp_path: Path
) -> None:
    cycle = _on_servers(nats_server, s3_server, bus, domain, tmp_path)
    with controller_process(cycle, tmp_path):
        await cycle.import_base()
        await flipped(cycle, 1)
        await cycle.answer(await cycle.evaluate(await cycle.save_checkpoint(100)), wait_s=WAIT_S)
        await flipped(cycle, 2)
        improver = SelfImprover(cycle.config)
        assert (await improver.rollback_generator()).version == 1
        assert [entry.version for entry in await improver.history()] == [1, 2, 1]
        status = await improver.status()
        assert (status["generator"]["version"], status["accounting"]["lost"]) == (1, 0)
        url = f"http://127.0.0.1:{cycle.config.controller.port}"
        async with httpx.AsyncClient(base_url=url) as client:
            assert (await client.get("/readyz")).json() == {"status": "ok"}
            published = await client.post("/v1/documents", json={"text": "A passage.", "source": "test"})
            assert published.json()["subject"] == f"documents.{domain}"
    assert (tmp_path / "pipeline_state.json").exists()


def _on_servers(nats_server: NatsServer, s3_server: S3Server, bus: JetStreamBus, domain: str, directory: Path) -> Cycle:
    """A cycle whose configuration a process can be started with, its domain file included."""
    section = s3_server.section(bucket=f"test-{secrets.token_hex(5)}")
    blobs = S3Blobs(section)
    blobs.start()
    cycle = Cycle(directory, bus=bus, blobs=blobs, name=domain, port=_free_port())
    cycle.config = cycle.config.model_copy(update={"nats": nats_server.section(ack_wait_s=1.0), "s3": section})
    domains = directory / "config" / "domains"
    domains.mkdir(parents=True)
    (domains / f"{domain}.yaml").write_text(yaml.safe_dump(cycle.domain.model_dump(mode="json")))
    return cycle


def _free_port() -> int:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
