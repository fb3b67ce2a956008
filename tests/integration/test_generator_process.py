"""The generator as a process on real NATS and S3: first start, requests, kill -9 after each step of the commit rule."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from jupiter.blobs.s3 import S3Blobs
from jupiter.bus.jetstream import JetStreamBus
from jupiter.config import ClusterConfig
from jupiter.config.loading import settings_as_environment
from jupiter.config.sections import GeneratorSection
from jupiter.events import BaseModelImported, BatchGenerated, GeneratorLoaded
from tests.servers import NatsServer, S3Server
from tests.tiny_model import make_tiny_model
from tests.unit.generator.stage import Stage, until

pytestmark = [pytest.mark.connected, pytest.mark.timeout(300)]


@pytest.fixture
def stage(domain: str, bus: JetStreamBus, blobs: S3Blobs, tmp_path: Path) -> Stage:
    return Stage(directory=tmp_path, domain=domain, bus=bus, blobs=blobs)


@pytest.fixture
def config(stage: Stage, nats_server: NatsServer, s3_server: S3Server) -> ClusterConfig:
    base = make_tiny_model(stage.directory / "base", seed=1)
    return ClusterConfig(
        domain=stage.domain,
        instance="slot-0",
        data_dir=stage.directory / "data",
        nats=nats_server.section(ack_wait_s=1.0),
        s3=s3_server.section(bucket=stage.blobs.bucket),
        generator=GeneratorSection(base_model=str(base), device="cpu"),
    )


@asynccontextmanager
async def generator(config: ClusterConfig, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the service; it is stopped as an operator stops it, unless it has died."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("JUPITER_")}
    domains = config.data_dir / "config" / "domains"
    domains.mkdir(parents=True, exist_ok=True)
    (domains / f"{config.domain}.yaml").write_text("description: A test.\ntasks: [{task: question_answer}]\n")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "jupiter.generator"),
        cwd=config.data_dir,
        env={**inherited, **settings_as_environment(config), "OMP_NUM_THREADS": "1", **environment},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            # A signal before its handler is in place ends the process as well, and so does the guard of a slow end.
            assert await asyncio.wait_for(process.wait(), 100) in (0, -signal.SIGTERM, 128 + signal.SIGTERM)


async def first(stage: Stage, channel: str) -> object:
    async with asyncio.timeout(120):
        async for entry in stage.bus.read(f"{channel}.{stage.domain}"):
            return entry.event
    raise AssertionError


async def test_the_base_model_is_imported_registered_loaded_and_generates(stage: Stage, config: ClusterConfig) -> None:
    async with generator(config):
        imported = await first(stage, "models")
        assert isinstance(imported, BaseModelImported)
        stage.store_imported(imported)
        await stage.flip(1)
        loaded = await first(stage, "loads")
        assert isinstance(loaded, GeneratorLoaded)
        assert (loaded.version, loaded.instance) == (1, "slot-0")
        request = stage.request(1, version=1)
        await stage.bus.publish(request)
        batch = await first(stage, "batches")
        assert isinstance(batch, BatchGenerated)
        assert batch.batch_id == request.request_id
        assert batch.samples == len(stage.samples(batch))
    link = config.data_dir / "generators" / "current"
    assert str(link.readlink()) == "generator_v1"
    async with generator(config):  # a restart has the model on its disk, and loads it again
        await until(lambda: _loads(stage, 2))


async def _loads(stage: Stage, count: int) -> bool:
    """Say whether the newest status tells of a loaded version: the event itself is deduplicated."""
    statuses = [entry.event async for entry in stage.bus.read(f"status.{stage.domain}.>", follow=False)]
    return any("serving version 1" in getattr(status, "detail", "") for status in statuses)


async def test_killed_after_every_step_the_restarted_generator_makes_exactly_one_batch(
    stage: Stage, config: ClusterConfig
) -> None:
    stage.store_version(1)
    await stage.flip(1)
    marker = stage.directory / "died"
    requests = [stage.request(1, version=1), stage.request(2, version=1)]
    await stage.bus.publish(requests[0])
    for step in ("blobs", "manifest", "event", "ack"):
        async with generator(config, JUPITER_CRASH_AFTER=step, JUPITER_CRASH_MARKER=str(marker)) as dying:
            assert await asyncio.wait_for(dying.wait(), 120) == -signal.SIGKILL
        assert marker.read_text().split()[-1] == step
        assert len(await stage.published("batches")) == (1 if step in ("event", "ack") else 0), step
    await stage.bus.publish(requests[1])
    async with generator(config):
        await stage.until_published("batches", 2)
        await until(lambda: _nothing_is_left(stage))
    batches = await stage.published("batches")
    assert [batch.batch_id for batch in batches] == [request.request_id for request in requests]
    for batch in batches:
        assert batch.samples == len(stage.samples(batch))
    letters = await stage.bus.dead_letters(limit=1000)  # the server is shared: other tests bury on purpose
    assert [letter for letter in letters if letter.subject.endswith(f".{stage.domain}")] == []


async def _nothing_is_left(stage: Stage) -> bool:
    backlog: int = await stage.bus.backlog(f"generation.{stage.domain}", durable="generator")
    return backlog == 0
