"""A node upgraded before the others: a service of the next schema version beside ours, on one stream."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jupiter.blobs.s3 import S3Blobs
from jupiter.bus.codec import encode
from jupiter.bus.jetstream import JetStreamBus
from jupiter.config import ClusterConfig
from jupiter.config.loading import settings_as_environment
from jupiter.events import BatchGenerated
from jupiter.records import digest_of
from tests.servers import NatsServer, S3Server

pytestmark = pytest.mark.connected

ROOT = Path(__file__).parents[3]
WAIT_S = 60.0


async def test_each_version_reads_what_the_other_published(
    nats_server: NatsServer, s3_server: S3Server, bus: JetStreamBus, blobs: S3Blobs, domain: str, tmp_path: Path
) -> None:
    config = ClusterConfig(
        domain=domain, nats=nats_server.section(), s3=s3_server.section(bucket=blobs.bucket), data_dir=tmp_path
    )
    old = BatchGenerated(
        domain=domain,
        batch_id=digest_of("batch"),
        generator_version=1,
        sequence=1,
        manifest_key="batches/x/manifest.json",
        manifest_sha256=digest_of("manifest"),
        samples=8,
        tokens=80,
        seconds=1.0,
    )
    await bus.publish(old)
    with (tmp_path / "upgraded.log").open("wb") as log:
        upgraded = subprocess.Popen(  # noqa: ASYNC220 - starting it takes a millisecond
            [sys.executable, "-m", "tests.integration.infra.upgraded_service"],
            cwd=ROOT,
            env={**os.environ, **settings_as_environment(config)},
            stdout=log,
            stderr=log,
        )
    try:
        # It read ours, whose count of unusable items it had to fill in, and answered in its own version.
        read = []
        async with asyncio.timeout(WAIT_S):
            async for entry in bus.read(old.subject):
                read.append(entry.event)
                if len(read) == 2:
                    break
    finally:
        upgraded.kill()
        upgraded.wait()
    stored = await stored_bodies(nats_server, old.subject)
    assert [body["schema_version"] for body in stored] == [1, 2]
    assert stored[1]["unusable"] == old.samples + 1
    assert read == [old, old.model_copy(update={"batch_id": digest_of("answer", old.batch_id)})]
    assert bus.unreadable == 0
    assert encode(old, source="test").message_id == old.event_id


async def stored_bodies(server: NatsServer, subject: str) -> list[dict[str, object]]:
    """Return what lies in the stream, as it lies there."""
    import nats

    client = await nats.connect(server.url)
    try:
        subscription = await client.jetstream().subscribe(subject, ordered_consumer=True)
        return [json.loads((await subscription.next_msg(timeout=WAIT_S)).data) for _ in range(2)]
    finally:
        await client.close()
