"""Servers that refuse, lie or lose answers: what the bus and the store say then."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import nats
import pytest
from nats.aio.msg import Msg

from jupiter.blobs.s3 import S3Blobs
from jupiter.bus.connection import RETRY_PAUSE_S
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


def test_a_bucket_that_is_gone_is_an_outage_and_not_an_absent_object(s3_server: S3Server, tmp_path: Path) -> None:
    """A store that comes up without its volume: whoever took it for "there is no such object" would drop its work."""
    section = s3_server.section(bucket=f"test-{secrets.token_hex(5)}")
    blobs = S3Blobs(section, retry_s=0.3)
    requests: tuple[Callable[[], object], ...] = (
        lambda: blobs.get("a"),
        lambda: blobs.get_file("a", tmp_path / "a", sha256="0" * 64, size=1),
        lambda: blobs.stat("a"),
        lambda: blobs.list("a/"),
        lambda: blobs.delete("a"),
        blobs.ready,
    )
    for request in requests:
        with pytest.raises(Unavailable, match=f"bucket {section.bucket} is gone: does the store run with its volume"):
            request()
    blobs.start()
    blobs.ready()
    assert blobs.stat("a") is None


def test_a_bucket_that_comes_back_is_waited_for(s3_server: S3Server, blobs: S3Blobs) -> None:
    blobs.put("a", b"one")
    with lossy(s3_server.endpoint) as proxy:
        section = s3_server.section(bucket=blobs.bucket).model_copy(update={"endpoint": proxy.endpoint})
        proxy.without_bucket = 2
        assert S3Blobs(section).get("a") == b"one"
        assert proxy.without_bucket == 0


async def test_no_nats_server_is_a_clear_error() -> None:
    bus = JetStreamBus(NatsSection(url=f"nats://{NOBODY}"), source="jupiter/test", retry_s=0.3)
    with pytest.raises(Unavailable, match=f"no connection to NATS at nats://{NOBODY}"):
        await bus.start()
    with pytest.raises(Unavailable, match="not open"):
        await bus.ready()
    await bus.close()


async def test_a_reader_pauses_between_its_questions_to_a_server_that_cannot_answer(
    nats_server: NatsServer, bus: JetStreamBus, domain: str
) -> None:
    asked = 0
    client = await nats.connect(nats_server.url)

    async def refuse(message: Msg) -> None:
        nonlocal asked
        asked += 1
        await client.publish(message.reply, headers={"Status": "503", "Description": "no leader"})

    await client.subscribe("$JS.API.DIRECT.GET.NOBODY", cb=refuse)
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(10 * RETRY_PAUSE_S):
                async for _ in bus.read(f"nobody.{domain}"):
                    pass
    finally:
        await client.close()
    assert 2 <= asked <= 11


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
