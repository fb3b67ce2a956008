"""The curator as a process on real servers: documents by plain NATS, bad ones, batches, and death at every step."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nats
import pytest

from jupiter import keys, manifests
from jupiter.blobs.s3 import S3Blobs
from jupiter.bus.jetstream import JetStreamBus
from jupiter.config import ClusterConfig
from jupiter.config.loading import settings_as_environment
from jupiter.config.sections import CuratorSection, TelemetrySection
from jupiter.curator.handlers import accept_document
from jupiter.curator.shard import SAMPLES_FILE
from jupiter.events import BatchGenerated, DocumentAccepted, Event, ShardCurated
from jupiter.sample_files import read_parquet
from tests.servers import NatsServer, S3Server
from tests.unit.curator.material import (
    GOOD,
    PASSAGE,
    commit_batch,
    deps_for,
    freeze_benchmark,
    published,
    register_generator,
    sample,
)

# A dozen processes are started here; on a machine that does other work each may take seconds.
pytestmark = [pytest.mark.connected, pytest.mark.timeout(240)]

WAIT_S_MAX = 90.0
STOP_S_MAX = 30.0


@pytest.fixture
def config(domain: str, nats_server: NatsServer, s3_server: S3Server, blobs: S3Blobs, tmp_path: Path) -> ClusterConfig:
    return ClusterConfig(
        domain=domain,
        data_dir=tmp_path,
        nats=nats_server.section(ack_wait_s=2.0),
        s3=s3_server.section(bucket=blobs.bucket),
        telemetry=TelemetrySection(log_format="text"),
        curator=CuratorSection(documents_in_flight_max=2),
    )


@contextmanager
def curator(config: ClusterConfig, tmp_path: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run `python -m jupiter.curator` while the block runs."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("JUPITER_")}
    with (tmp_path / "curator.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupiter.curator"],
            cwd=tmp_path,
            env={**clean, **settings_as_environment(config), **environment},
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(STOP_S_MAX)


async def until(what: Callable[[], Awaitable[Any]]) -> Any:
    """Return the first true result of `what`."""
    async with asyncio.timeout(WAIT_S_MAX):
        while True:
            if result := await what():
                return result
            await asyncio.sleep(0.05)


async def events(bus: JetStreamBus, channel: str, domain: str) -> list[Event]:
    return [entry.event async for entry in bus.read(keys.subject(channel, domain), follow=False)]


async def prepare(bus: JetStreamBus, blobs: S3Blobs, domain: str) -> BatchGenerated:
    """Store what a batch needs, without a curator process, and return the batch's event."""
    register_generator(blobs, domain)
    freeze_benchmark(blobs, domain)
    deps = deps_for(bus, blobs, domain=domain)
    for data in (
        published(PASSAGE, title="json.dumps", kind="api", group="json"),
        *(published(f"Entry {n} of the manual tells the story of thing {n * 7} in brief words.") for n in range(10)),
    ):
        for event in await accept_document(data, deps):
            await bus.publish(event)
    return commit_batch(blobs, [sample(GOOD), sample("I'm sorry, no.")], domain=domain)


async def test_a_plain_nats_message_becomes_part_of_a_shard_and_a_bad_one_a_dead_letter(
    bus: JetStreamBus, blobs: S3Blobs, domain: str, config: ClusterConfig, nats_server: NatsServer, tmp_path: Path
) -> None:
    register_generator(blobs, domain)
    freeze_benchmark(blobs, domain)
    client = await nats.connect(nats_server.url)
    subject = f"documents.{domain}"
    await client.publish(subject, published(PASSAGE, title="json.dumps", kind="api", group="json", source="my:notes"))
    await client.publish(subject, b'{"text": "no source"}')
    for number in range(6):
        text = f"Entry {number} of the manual tells the story of thing {number * 7} in brief words."
        await client.publish(subject, published(text))
    await client.close()

    async def dead() -> list[str]:
        return [letter.reason for letter in await bus.dead_letters(limit=1000) if letter.subject == subject]

    async def accepted() -> bool:
        return len(await events(bus, "corpus", domain)) == 7

    async def curated() -> list[Event]:
        return await events(bus, "shards", domain)

    with curator(config, tmp_path) as process:
        await until(accepted)
        assert "field `source`" in (await until(dead))[0]
        await bus.publish(commit_batch(blobs, [sample(GOOD), sample("I'm sorry, no.")], domain=domain))
        (event,) = await until(curated)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, STOP_S_MAX) == 0

    assert isinstance(event, ShardCurated)
    assert event.dropped == {"refusal": 1}
    manifest = manifests.read(blobs, event.manifest_key, sha256=event.manifest_sha256).manifest
    samples = read_parquet(manifests.download_bytes(blobs, manifest.file(SAMPLES_FILE)))
    documents = {
        e.document_id: e.source for e in await events(bus, "corpus", domain) if isinstance(e, DocumentAccepted)
    }
    assert {documents[one.document_id] for one in samples if one.origin == "synthetic"} == {"my:notes"}
    assert {one.origin for one in samples} == {"real", "synthetic"}
    assert 0.30 <= event.real_tokens / event.tokens <= 0.40


@pytest.mark.parametrize("step", ["blobs", "manifest", "event", "ack"])
async def test_killed_after_any_step_nothing_is_lost_and_nothing_doubled(
    step: str, bus: JetStreamBus, blobs: S3Blobs, domain: str, config: ClusterConfig, tmp_path: Path
) -> None:
    batch = await prepare(bus, blobs, domain)
    await bus.publish(batch)
    crash = {"JUPITER_CRASH_AFTER": step, "JUPITER_CRASH_MARKER": str(tmp_path / "crashed")}
    with curator(config, tmp_path, **crash) as process:
        assert await asyncio.to_thread(process.wait, WAIT_S_MAX) == -signal.SIGKILL

    following = commit_batch(blobs, [sample(GOOD, seed=2)], sequence=2, domain=domain)

    async def two_shards() -> list[Event]:
        found = await events(bus, "shards", domain)
        return found if len(found) >= 2 else []

    with curator(config, tmp_path, **crash):
        await bus.publish(following)
        shards = await until(two_shards)
    assert [event.shard_id for event in shards if isinstance(event, ShardCurated)] == [
        batch.batch_id,
        following.batch_id,
    ]
    stored = [info.key for info in blobs.list(f"shards/{domain}/") if info.key.endswith("manifest.json")]
    assert len(stored) == 2
    # The second shard knows the first: the killed process left nothing half known.
    assert shards[1].dropped == {"exact_duplicate": 1}
