"""The shadow batch on real servers: the generator, then the curator, killed after each step; one answer of each."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from jupiter import manifests
from jupiter.blobs.s3 import S3Blobs
from jupiter.bus.jetstream import JetStreamBus
from jupiter.config import ClusterConfig
from jupiter.config.sections import TelemetrySection
from jupiter.curator.handlers import accept_document
from jupiter.events import ShadowGenerated, ShadowJudged, ShadowRequested
from jupiter.generator.handlers import generation_requested
from jupiter.records import canonical_json
from jupiter.reports import Shadow
from tests.integration.test_curator_service import curator
from tests.integration.test_generator_process import generator
from tests.servers import NatsServer, S3Server
from tests.unit.curator.material import deps_for, freeze_benchmark
from tests.unit.generator.stage import Stage, until

# Four processes a test, two of them with torch; on a machine that does other work each may take a quarter of a minute.
pytestmark = [pytest.mark.connected, pytest.mark.timeout(300)]

DIED_S_MAX = 120.0


@pytest.fixture
def stage(domain: str, bus: JetStreamBus, blobs: S3Blobs, tmp_path: Path) -> Stage:
    return Stage(directory=tmp_path, domain=domain, bus=bus, blobs=blobs)


@pytest.fixture
def config(stage: Stage, nats_server: NatsServer, s3_server: S3Server) -> ClusterConfig:
    return ClusterConfig(
        domain=stage.domain,
        data_dir=stage.directory / "data",
        nats=nats_server.section(ack_wait_s=1.0),
        s3=s3_server.section(bucket=stage.blobs.bucket),
        telemetry=TelemetrySection(log_format="text"),
    )


async def ask(stage: Stage) -> ShadowRequested:
    """Have version 1 serve and make a batch, and return the request that a checkpoint of other weights repeat it."""
    stage.store_version(1)
    await stage.flip(1)
    deps = stage.deps()
    assert await deps.reloader.adopt(stage.entries[0])
    (batch,) = await generation_requested(stage.request(1, version=1), deps)
    request = stage.shadow_request(batch, stage.store_checkpoint(100))  # type: ignore[arg-type]
    await stage.bus.publish(request)
    return request


async def prepare_curator(stage: Stage) -> None:
    freeze_benchmark(stage.blobs, stage.domain)
    deps = deps_for(stage.bus, stage.blobs, domain=stage.domain)
    for document in stage.documents:
        published = {"text": document.text, "source": document.source, "title": document.title, "split": "training"}
        for event in await accept_document(canonical_json(published), deps):
            await stage.bus.publish(event)


async def is_done(stage: Stage, durable: str) -> bool:
    backlog: int = await stage.bus.backlog(f"shadows.{stage.domain}", durable=durable)
    return backlog == 0


async def test_killed_at_work_on_a_shadow_both_services_answer_once(
    stage: Stage, config: ClusterConfig, tmp_path: Path
) -> None:
    request = await ask(stage)
    await prepare_curator(stage)
    for step in ("manifest", "event"):
        crash = {"JUPITER_CRASH_AFTER": step, "JUPITER_CRASH_MARKER": str(tmp_path / "generator_died")}
        async with generator(config, **crash) as dying:
            assert await asyncio.wait_for(dying.wait(), DIED_S_MAX) == -signal.SIGKILL
    async with generator(config):
        await stage.until_published("shadows", 2)
        await until(lambda: is_done(stage, "generator-shadows"))

    for step in ("manifest", "event"):
        crash = {"JUPITER_CRASH_AFTER": step, "JUPITER_CRASH_MARKER": str(tmp_path / "curator_died")}
        with curator(config, tmp_path, **crash) as process:
            assert await asyncio.to_thread(process.wait, DIED_S_MAX) == -signal.SIGKILL
    with curator(config, tmp_path):
        asked, made, judged = await stage.until_published("shadows", 3)
        await until(lambda: is_done(stage, "curator-shadows"))

    assert asked == request
    assert isinstance(made, ShadowGenerated)
    assert isinstance(judged, ShadowJudged)
    manifest = manifests.read(stage.blobs, judged.manifest_key, sha256=judged.manifest_sha256).manifest
    shadow = Shadow.model_validate(manifest.details)
    assert shadow.candidate.manifest_sha256 == made.manifest_sha256
    assert shadow.incumbent.manifest_sha256 == request.batch_manifest_sha256
    for side in (shadow.candidate, shadow.incumbent):
        assert len(side.accepted) == sum(side.accepted) + sum(side.dropped.values()) == 3
    assert len(await stage.published("shadows")) == 3
    assert [info.key for info in stage.blobs.list(f"shards/{stage.domain}/")] == []
    letters = await stage.bus.dead_letters(limit=1000)  # the server is shared: other tests bury on purpose
    assert [letter for letter in letters if letter.subject.endswith(f".{stage.domain}")] == []
