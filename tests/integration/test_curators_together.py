"""Three curator processes on one index in Redis: killed, frozen and robbed of the index, they keep what one would."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jupiter import keys, manifests
from jupiter.blobs.s3 import S3Blobs
from jupiter.bus.jetstream import JetStreamBus
from jupiter.config import ClusterConfig
from jupiter.config.loading import settings_as_environment
from jupiter.config.sections import CuratorSection, TelemetrySection
from jupiter.curator.handlers import accept_document
from jupiter.curator.shard import SAMPLES_FILE
from jupiter.events import ShardCurated
from jupiter.overlap.forbidden import training_text
from jupiter.overlap.signatures import NearDuplicateIndex, own_size, sketch
from jupiter.overlap.wording import words
from jupiter.records import Sample, digest_of
from jupiter.sample_files import read_parquet
from tests.servers import NatsServer, RedisServer, S3Server
from tests.unit.curator.material import commit_batch, deps_for, freeze_benchmark, published, register_generator

pytestmark = [pytest.mark.connected, pytest.mark.timeout(600)]

CURATORS = 3
BATCHES = 12
ACK_WAIT_S = 2.0
WAIT_S = 240.0
"""Generous: a curator is ready after a second of CPU, which on a machine that does other work took two minutes."""
DOCUMENT_SAMPLES_MAX = 5
REPEATS_MAX = 3
THINGS = ("valve", "boiler", "turbine", "condenser", "governor", "chimney", "gearbox", "manometer")
PASSAGES = [
    f"The {thing} of the old plant closes when the pressure in its main pipe rises over what the {thing} can bear, and "
    f"it opens again once the cooling loop has brought the water of the {thing} down to a safe and steady temperature, "
    f"which the guard of the night shift writes into the book that lies on the table beside the iron door."
    for thing in THINGS
]


@contextmanager
def curator(config: ClusterConfig, place: Path, name: str) -> Iterator[subprocess.Popen[bytes]]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("JUPITER_")}
    with (place / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupiter.curator"],
            cwd=place,
            env={**clean, **settings_as_environment(config), "JUPITER_INSTANCE": name},
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def samples_of_batch(number: int, documents: dict[str, str]) -> list[Sample]:
    """Return a sample on every document; those of an odd batch differ in the last word from those of the one before."""
    made = []
    for place, (document_id, passage) in enumerate(documents.items()):
        spoken = passage.lower().replace(",", "").rstrip(".").split()
        random.Random(f"{number // 2}:{place}").shuffle(spoken)
        response = " ".join(["The", *spoken[:40], "door" if number % 2 else "table"]) + "."
        made.append(
            Sample(
                sample_id=digest_of("sample", number, place),
                origin="synthetic",
                instruction=f"When does the {THINGS[place]} close and open?",
                response=response,
                document_id=document_id,
                task="question_answer",
                template="plain",
                seed=number,
                generator_version=1,
                finish_reason="stop",
            )
        )
    return made


async def shards_of(bus: JetStreamBus, domain: str) -> list[ShardCurated]:
    read = [entry.event async for entry in bus.read(keys.subject("shards", domain), follow=False)]
    return [event for event in read if isinstance(event, ShardCurated)]


async def until_shards(bus: JetStreamBus, domain: str, count: int) -> None:
    async with asyncio.timeout(WAIT_S):
        while len(await shards_of(bus, domain)) < count:  # noqa: ASYNC110 - other processes make them
            await asyncio.sleep(0.05)


def check_kept(blobs: S3Blobs, shards: list[ShardCurated]) -> Counter[str]:
    """Assert what is counted over the run; return how many samples were kept of each document."""
    index = NearDuplicateIndex(threshold=CuratorSection().near_duplicate_threshold)
    of_document: Counter[str] = Counter()
    real_uses: Counter[str] = Counter()
    for shard in shards:
        manifest = manifests.read(blobs, shard.manifest_key, sha256=shard.manifest_sha256).manifest
        samples = read_parquet(manifests.download_bytes(blobs, manifest.file(SAMPLES_FILE)))
        real_uses.update(sample.sample_id for sample in samples if sample.origin == "real")
        for sample in (sample for sample in samples if sample.origin != "real"):
            text = words(training_text(sample))
            [sketched] = sketch([text])
            assert index.find(sketched) is None, f"near-duplicates were kept: {sample.response}"
            index.add(sample.sample_id, sketched[own_size(len(text))])
            of_document[sample.document_id] += 1
    assert max(of_document.values()) <= DOCUMENT_SAMPLES_MAX
    assert max(real_uses.values()) <= REPEATS_MAX
    return of_document


def read_logs(place: Path) -> dict[str, str]:
    return {log.stem: log.read_text() for log in place.glob("curator-*.log")}


async def test_three_curators_keep_what_one_would(
    bus: JetStreamBus,
    blobs: S3Blobs,
    domain: str,
    nats_server: NatsServer,
    s3_server: S3Server,
    redis_server: RedisServer,
    tmp_path: Path,
) -> None:
    config = ClusterConfig(
        domain=domain,
        data_dir=tmp_path,
        nats=nats_server.section(ack_wait_s=ACK_WAIT_S),
        s3=s3_server.section(bucket=blobs.bucket),
        telemetry=TelemetrySection(log_format="text"),
        curator=CuratorSection(
            redis_url=redis_server.url,
            document_samples_max=DOCUMENT_SAMPLES_MAX,
            real_repeats_max=REPEATS_MAX,
            novelty_rouge_max=1.0,
            topic_share_max=1.0,
        ),
    )
    register_generator(blobs, domain)
    freeze_benchmark(blobs, domain)
    documents: dict[str, str] = {}
    for passage in PASSAGES:
        for event in await accept_document(published(passage, group="plant"), deps_for(bus, blobs, domain=domain)):
            await bus.publish(event)
            documents[event.document_id] = passage  # type: ignore[attr-defined]
    for number in range(60):
        text = f"Entry {number} of the manual tells the story of thing {number * 7} in brief words of its own."
        for event in await accept_document(published(text), deps_for(bus, blobs, domain=domain)):
            await bus.publish(event)
    batches = [
        commit_batch(
            blobs,
            samples_of_batch(number, documents),
            sequence=number + 1,
            domain=domain,
        )
        for number in range(BATCHES)
    ]
    with (
        curator(config, tmp_path, "curator-1") as first,
        curator(config, tmp_path, "curator-2") as second,
        curator(config, tmp_path, "curator-3"),
    ):
        for batch in batches[:6]:
            await bus.publish(batch)
        await until_shards(bus, domain, 2)
        first.send_signal(signal.SIGSTOP)  # a holder that is taken for dead while it works, and comes back later
        await until_shards(bus, domain, 4)
        second.kill()
        await asyncio.to_thread(redis_server.client().flushall)
        for batch in batches[6:]:
            await bus.publish(batch)
        await until_shards(bus, domain, 8)
        first.send_signal(signal.SIGCONT)
        await asyncio.to_thread(redis_server.kill9)
        await asyncio.to_thread(redis_server.start)
        await until_shards(bus, domain, BATCHES)
    shards = await shards_of(bus, domain)
    assert sorted(shard.batch_id for shard in shards) == sorted(batch.batch_id for batch in batches)
    kept = await asyncio.to_thread(check_kept, blobs, shards)
    assert len(kept) == len(PASSAGES), "the batches must leave something to keep"
    dropped = Counter[str]()
    for shard in shards:
        dropped.update(shard.dropped)
    assert dropped["near_duplicate_earlier"] > 0
    logs = await asyncio.to_thread(read_logs, tmp_path)
    worked = {name for name, log in logs.items() if "samples accepted" in log}
    assert len(worked) >= 2, f"only {worked} made shards"
    assert any("filled again" in log for log in logs.values())
