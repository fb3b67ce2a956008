"""Servers that refuse, lie or lose answers: what the bus and the store say then."""

from __future__ import annotations

import asyncio

import pytest

from jupiter.blobs.s3 import S3Blobs
from jupiter.bus.jetstream import JetStreamBus
from jupiter.config.sections import NatsSection, S3Section
from jupiter.errors import Rejected, Unavailable
from tests.integration.infra.bus_contract import accepted
from tests.integration.infra.lossy_s3 import lossy
from tests.servers import NatsServer, S3Server

pytestmark = pytest.mark.connected

NOBODY = "127.0.0.1:1"


def test_a_create_whose_answer_was_lost_is_won(s3_server: S3Server, blobs: S3Blobs) -> None:
    with lossy(s3_server.endpoint) as proxy:
        section = s3_server.section(bucket=blobs.bucket).model_copy(update={"endpoint": proxy.endpoint})
        doubtful = S3Blobs(section)
        proxy.lose = 1
        assert doubtful.create("mine", b"one") is True
        assert blobs.get("mine") == b"one"


def test_a_create_that_somebody_else_won_is_lost_though_the_answer_was_lost(
    s3_server: S3Server, blobs: S3Blobs
) -> None:
    blobs.create("theirs", b"two")
    with lossy(s3_server.endpoint) as proxy:
        section = s3_server.section(bucket=blobs.bucket).model_copy(update={"endpoint": proxy.endpoint})
        doubtful = S3Blobs(section)
        proxy.lose = 2
        assert doubtful.create("theirs", b"one") is False
        assert blobs.get("theirs") == b"two"


def test_a_server_without_conditional_create_is_refused(s3_server: S3Server, blobs: S3Blobs) -> None:
    with lossy(s3_server.endpoint) as proxy:
        proxy.conditional = False
        section = s3_server.section(bucket=blobs.bucket).model_copy(update={"endpoint": proxy.endpoint})
        with pytest.raises(Unavailable, match="ignores If-None-Match"):
            S3Blobs(section).start()


def test_no_object_store_is_a_clear_error() -> None:
    section = S3Section(endpoint=NOBODY, access_key="a", secret_key="b")
    with pytest.raises(Unavailable, match=f"reading a on {NOBODY}: NewConnectionError"):
        S3Blobs(section, retry_s=0.3).get("a")
    with pytest.raises(Unavailable, match="takes no PUT"):
        S3Blobs(section).ready()


async def test_no_nats_server_is_a_clear_error() -> None:
    bus = JetStreamBus(NatsSection(url=f"nats://{NOBODY}"), source="jupiter/test", retry_s=0.3)
    with pytest.raises(Unavailable, match=f"no connection to NATS at nats://{NOBODY}"):
        await bus.start()
    with pytest.raises(Unavailable, match="not open"):
        await bus.ready()
    await bus.close()


async def test_a_message_larger_than_the_server_takes_is_rejected(bus: JetStreamBus, domain: str) -> None:
    with pytest.raises(Rejected, match="larger than the NATS server's max_payload"):
        await bus.publish_raw(f"documents.{domain}", b" " * (9 << 20))


async def test_a_full_stream_refuses_instead_of_forgetting(
    tmp_path_factory: pytest.TempPathFactory, domain: str
) -> None:
    server = NatsServer(tmp_path_factory.mktemp("small-nats"))
    await asyncio.to_thread(server.start)
    bus = JetStreamBus(server.section().model_copy(update={"stream_bytes_max": 1 << 20}), source="jupiter/test")
    stored = 0

    async def fill() -> None:
        nonlocal stored
        for number in range(100):
            await bus.publish(accepted(domain, f"{number}" + "x" * 50_000))
            stored += 1

    try:
        await bus.start()
        with pytest.raises(Unavailable, match=r"full; raise nats\.stream_bytes_max"):
            await fill()
        assert stored > 10
        assert len([entry async for entry in bus.read(f"corpus.{domain}", follow=False)]) == stored
        await bus.ready()
    finally:
        await bus.close()
        server.stop()
