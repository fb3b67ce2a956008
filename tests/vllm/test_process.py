"""The generator service with engine vllm, a real process on real NATS and S3: promotion, rollback, kill -9."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from jupiter.blobs.s3 import S3Blobs
from jupiter.bus.jetstream import JetStreamBus
from jupiter.config import ClusterConfig
from jupiter.config.loading import settings_as_environment
from jupiter.config.sections import GeneratorSection, VllmSection
from jupiter.events import BatchGenerated, GenerationVoided, GeneratorLoaded, GeneratorLoadFailed
from jupiter.records import Sampling
from tests.servers import NatsServer, S3Server
from tests.unit.generator.stage import Stage
from tests.unit.generator.test_hot_reload import flip_a_bit
from tests.vllm.versions import WIDTH

pytestmark = [pytest.mark.connected, pytest.mark.slow, pytest.mark.timeout(900)]

LOOK_S = 0.3
"""Between two looks at the processes of this machine: a look costs a core some milliseconds."""
GREEDY = Sampling(temperature=0, max_new_tokens=16)


@pytest.fixture
def stage(domain: str, bus: JetStreamBus, blobs: S3Blobs, tmp_path: Path) -> Stage:
    return Stage(directory=tmp_path, domain=domain, bus=bus, blobs=blobs, hidden=WIDTH)


@pytest.fixture
def config(stage: Stage, nats_server: NatsServer, s3_server: S3Server) -> ClusterConfig:
    return ClusterConfig(
        domain=stage.domain,
        instance="slot-0",
        data_dir=stage.directory / "data",
        nats=nats_server.section(ack_wait_s=5.0),
        s3=s3_server.section(bucket=stage.blobs.bucket),
        generator=GeneratorSection(
            engine="vllm", batch_size=16, vllm=VllmSection(kv_cache_gib=0.1, max_model_len=1024, drain_s_max=20)
        ),
    )


@asynccontextmanager
async def generator(config: ClusterConfig) -> AsyncIterator[asyncio.subprocess.Process]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("JUPITER_")}
    domains = config.data_dir / "config" / "domains"
    domains.mkdir(parents=True, exist_ok=True)
    (domains / f"{config.domain}.yaml").write_text("description: A test.\ntasks: [{task: question_answer}]\n")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "jupiter.generator"),
        cwd=config.data_dir,
        env={**inherited, **settings_as_environment(config)},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(process.wait(), 100)


async def ended(processes: list[psutil.Process]) -> None:
    while any(  # noqa: ASYNC110 - nobody tells of the end of another's child
        each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in processes
    ):
        await asyncio.sleep(LOOK_S)


async def loaded(stage: Stage, count: int) -> object:
    """Return the newest of so many reports; an engine needs a while to come up."""
    found: list[object] = []
    async with asyncio.timeout(300):
        async for entry in stage.bus.read(f"loads.{stage.domain}"):
            found.append(entry.event)
            if len(found) == count:
                return found[-1]
    raise AssertionError


async def test_a_promotion_a_bad_version_and_a_rollback(stage: Stage, config: ClusterConfig) -> None:
    stage.store_version(1)
    stage.store_version(2)
    stage.store_version(3, spoil=flip_a_bit)
    await stage.flip(1)
    async with generator(config) as process:
        first = await loaded(stage, 1)
        assert isinstance(first, GeneratorLoaded)
        assert first.version == 1
        begun = [stage.request(number, version=1, items=6, sampling=GREEDY) for number in (1, 2, 3)]
        for request in begun:
            await stage.bus.publish(request)
        await stage.flip(2)
        second = await loaded(stage, 2)
        assert isinstance(second, GeneratorLoaded)
        assert second.version == 2
        assert second.seconds < first.seconds  # in place: no engine came up
        await stage.bus.publish(stage.request(4, version=2, items=6, sampling=GREEDY))
        await stage.until_published("batches", 4)
        await stage.flip(3)
        third = await loaded(stage, 3)
        assert isinstance(third, GeneratorLoadFailed)
        assert "sha256" in third.reason
        await stage.flip(1)
        fourth = await loaded(stage, 4)
        assert isinstance(fourth, GeneratorLoaded)
        assert (fourth.version, fourth.ledger_sequence) == (1, 4)
        await stage.bus.publish(stage.request(5, version=1, items=6, sampling=GREEDY))
        outcomes = await stage.until_published("batches", 5)
        engines = psutil.Process(process.pid).children(recursive=True)
    assert engines
    await ended(engines)
    assert await stage.bus.dead_letters() == []
    batches = [event for event in outcomes if isinstance(event, BatchGenerated)]
    voided = [event for event in outcomes if isinstance(event, GenerationVoided)]
    assert len(batches) + len(voided) == 5
    assert {event.generator_version for event in voided} <= {1}
    assert {event.generator_version for event in batches} == {1, 2}
    for event in batches:
        assert {sample.generator_version for sample in stage.samples(event)} <= {event.generator_version}
        assert event.tokens > 0


async def test_killed_it_leaves_no_engine_behind(stage: Stage, config: ClusterConfig) -> None:
    stage.store_version(1)
    await stage.flip(1)
    async with generator(config) as process:
        service = psutil.Process(process.pid)
        assert isinstance(await loaded(stage, 1), GeneratorLoaded)
        engines = service.children(recursive=True)
        process.kill()
        await process.wait()
    assert engines
    await ended(engines)
