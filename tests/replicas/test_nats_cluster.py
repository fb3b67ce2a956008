"""A cluster of three NATS servers: the leader of a stream is killed in mid-cycle and comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import nats
import pytest

from jupiter.blobs.memory import MemoryBlobs
from jupiter.bus.jetstream import JetStreamBus
from jupiter.bus.streams import stream_name
from jupiter.config import ClusterConfig
from jupiter.deliveries import Pauses
from jupiter.events import CheckpointSaved, Event, ShardCurated
from jupiter.service import Runtime, ServiceParts, Subscription, running
from tests.integration.infra.bus_contract import shard
from tests.integration.infra.test_killed_servers import answer
from tests.servers import NatsCluster

pytestmark = [pytest.mark.connected, pytest.mark.timeout(300)]

EVENTS = 120
KILLS = 3


async def leader_of(cluster: NatsCluster, channel: str) -> str:
    """Return the name of the server that leads the channel's stream now."""
    client = await nats.connect(cluster.url.split(","))
    try:
        info = await client.jetstream().stream_info(stream_name(channel))
    finally:
        await client.close()
    assert info.config.num_replicas == len(cluster.nodes)
    assert info.cluster is not None
    return str(info.cluster.leader or "")


async def test_killing_the_leader_loses_and_doubles_nothing(nats_cluster: NatsCluster, domain: str) -> None:
    """A publisher, a service that answers each event, and a log reader all live through three dead leaders."""
    bus = JetStreamBus(nats_cluster.section(ack_wait_s=2.0), source="jupiter/test")
    await bus.start()
    handled: list[int] = []

    async def handle(event: ShardCurated, _: None) -> Sequence[Event]:
        handled.append(event.samples)
        return [answer(event)]

    async def publish() -> None:
        for number in range(EVENTS):
            await bus.publish(shard(domain, number))
            await asyncio.sleep(0.02)

    async def kill_leaders() -> list[str]:
        killed = []
        for channel in ("shards", "checkpoints", "shards")[:KILLS]:
            await asyncio.sleep(0.7)
            leader = nats_cluster.nodes[await leader_of(nats_cluster, channel)]
            leader.kill9()
            killed.append(leader.name)
            await asyncio.sleep(3)  # the other two elect, and go on without it
            await asyncio.to_thread(leader.start)
        return killed

    async def follow() -> list[int]:
        seen: list[int] = []
        async for entry in bus.read(f"checkpoints.{domain}"):
            assert isinstance(entry.event, CheckpointSaved)
            seen.append(entry.event.step)
            if len(seen) == EVENTS:
                break
        return seen

    config = ClusterConfig.model_validate({"domain": domain, "nats": {"ack_wait_s": 2}})
    runtime = Runtime.in_memory(
        name="trainer", config=config, bus=bus, blobs=MemoryBlobs(), pauses=Pauses(unavailable_s=0.1)
    )
    subscription = Subscription(
        channel="shards", durable="trainer", handlers={ShardCurated: handle}, max_in_flight=4, max_ack_pending=8
    )
    async with asyncio.timeout(240), running(runtime, ServiceParts(deps=None, subscriptions=[subscription])):
        following = asyncio.create_task(follow())
        _, killed = await asyncio.gather(publish(), kill_leaders())
        followed = await following
    assert len(killed) == KILLS
    assert sorted(followed) == list(range(EVENTS))
    assert set(handled) == set(range(EVENTS))
    for channel in ("shards", "checkpoints"):
        stored = [entry.event async for entry in bus.read(f"{channel}.{domain}", follow=False)]
        assert len(stored) == len({event.event_id for event in stored}) == EVENTS
    assert await bus.dead_letters() == []
    await bus.close()
