"""kill -9 of nats-server and of the S3 server under load: nothing acknowledged is lost, nothing is doubled."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from jupiter.blobs.memory import MemoryBlobs
from jupiter.blobs.s3 import S3Blobs
from jupiter.bus.jetstream import JetStreamBus
from jupiter.config import ClusterConfig
from jupiter.deliveries import Pauses
from jupiter.events import CheckpointSaved, Event, ShardCurated
from jupiter.records import digest_of
from jupiter.service import Runtime, ServiceParts, Subscription, running
from tests.integration.infra.bus_contract import shard
from tests.servers import NatsServer, S3Server

pytestmark = pytest.mark.connected

PUBLISHERS = 3
EVENTS_EACH = 40
KILLS = 3


@pytest.fixture
def mortal_nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path_factory.mktemp("mortal-nats"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def mortal_bus(mortal_nats: NatsServer) -> AsyncIterator[JetStreamBus]:
    bus = JetStreamBus(mortal_nats.section(ack_wait_s=2), source="jupiter/test")
    await bus.start()
    yield bus
    await bus.close()


def answer(event: ShardCurated) -> CheckpointSaved:
    return CheckpointSaved(
        domain=event.domain,
        checkpoint_id=digest_of("checkpoint", event.samples),
        run="run",
        step=event.samples,
        tokens_seen=1,
        loss=1.0,
        shard_sequence=1,
        manifest_key="k",
        manifest_sha256=event.shard_id,
    )


async def test_a_killed_nats_server_loses_and_doubles_nothing(
    mortal_nats: NatsServer, mortal_bus: JetStreamBus, domain: str
) -> None:
    """Publishers, a service that answers each event, and a log reader all live through three kills."""
    total = PUBLISHERS * EVENTS_EACH
    handled: list[int] = []
    sequences: dict[int, int] = {}

    async def handle(event: ShardCurated, _: None) -> Sequence[Event]:
        await asyncio.sleep(0.005)
        handled.append(event.samples)
        return [answer(event)]

    async def publish(publisher: int) -> None:
        for number in range(publisher, total, PUBLISHERS):
            sequences[number] = (await mortal_bus.publish(shard(domain, number))).sequence
            await asyncio.sleep(0.02)

    async def kill_and_restart() -> None:
        generator = random.Random(1)
        for _ in range(KILLS):
            await asyncio.sleep(generator.uniform(0.2, 0.5))
            mortal_nats.kill9()
            await asyncio.to_thread(mortal_nats.start)

    async def follow() -> list[int]:
        seen: list[int] = []
        async for entry in mortal_bus.read(f"checkpoints.{domain}"):
            assert isinstance(entry.event, CheckpointSaved)
            seen.append(entry.event.step)
            if len(seen) == total:
                return seen
        return seen

    config = ClusterConfig.model_validate({"domain": domain, "nats": {"ack_wait_s": 2}})
    runtime = Runtime.in_memory(
        name="trainer", config=config, bus=mortal_bus, blobs=MemoryBlobs(), pauses=Pauses(unavailable_s=0.1)
    )
    subscription = Subscription(
        channel="shards", durable="trainer", handlers={ShardCurated: handle}, max_in_flight=4, max_ack_pending=8
    )
    async with asyncio.timeout(100), running(runtime, ServiceParts(deps=None, subscriptions=[subscription])):
        following = asyncio.create_task(follow())
        await asyncio.gather(kill_and_restart(), *(publish(number) for number in range(PUBLISHERS)))
        followed = await following

    assert sorted(followed) == list(range(total))
    assert set(handled) == set(range(total))
    stored = {entry.sequence: entry.event async for entry in mortal_bus.read(f"shards.{domain}", follow=False)}
    assert stored == {sequences[number]: shard(domain, number) for number in range(total)}
    answers = [entry.event async for entry in mortal_bus.read(f"checkpoints.{domain}", follow=False)]
    assert len(answers) == len({event.event_id for event in answers}) == total
    assert await mortal_bus.dead_letters() == []


async def test_a_service_waits_for_a_nats_server_that_starts_later(
    mortal_nats: NatsServer, mortal_bus: JetStreamBus, domain: str
) -> None:
    mortal_nats.kill9()
    publishing = asyncio.create_task(mortal_bus.publish(shard(domain, 1)))
    await asyncio.sleep(0.3)
    assert not publishing.done()
    await asyncio.to_thread(mortal_nats.start)
    assert not (await publishing).duplicate
    assert (await mortal_bus.publish(shard(domain, 1))).duplicate


def test_a_killed_s3_server_loses_no_commit(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Creates in flight while the server is killed: each is won exactly once, and what was won is there."""
    server = S3Server(tmp_path_factory.mktemp("mortal-s3"))
    server.start()
    try:
        blobs = S3Blobs(server.section(), retry_s=60)
        blobs.start()

        def commit(number: int) -> bool:
            return blobs.create(f"manifests/{number}", b"%d" % number)

        with ThreadPoolExecutor(4) as pool:
            won = [pool.submit(commit, number) for number in range(400)]
            while sum(future.done() for future in won) < 100:
                time.sleep(0.005)
            server.kill9()
            server.start()
            outcomes = [future.result() for future in won]
        assert all(outcomes)
        assert all(blobs.get(f"manifests/{number}") == b"%d" % number for number in range(400))
        assert not any(commit(number) for number in range(0, 400, 40))
    finally:
        server.stop()
