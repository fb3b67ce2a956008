"""The consume loop: what is acked, what comes again, what is buried, and what a stop does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from jupiter import trace
from jupiter.blobs.memory import MemoryBlobs
from jupiter.bus.memory import MemoryBus
from jupiter.config import ClusterConfig
from jupiter.deliveries import DELIVERIES_MAX, Pauses
from jupiter.errors import Rejected, Retry, Unavailable
from jupiter.events import BatchGenerated, CheckpointSaved, Event, ServiceStatus, ShardCurated
from jupiter.records import digest_of
from jupiter.service import Runtime, ServiceParts, Subscription, running, serve
from tests.integration.infra.bus_contract import shard

DOMAIN = "domain_a"
NAME = "jupiter.ShardCurated"
SHORT = Pauses(backoff_s=(0, 0, 0, 0), unavailable_s=0, drain_s=0.5, background_s=0.1, status_s=0.05)


@dataclass
class Seen:
    """What the handlers of a test wrote down."""

    events: list[Event] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)
    traces: list[str] = field(default_factory=list)


async def record(event: ShardCurated, seen: Seen) -> Sequence[Event]:
    """Fail as the test says, else write down and answer with one event."""
    here = trace.current()
    seen.traces.append(here.trace_id if here else "")
    if seen.failures:
        raise seen.failures.pop(0)
    seen.events.append(event)
    return [checkpoint(event.samples)]


def checkpoint(step: int) -> CheckpointSaved:
    identity = digest_of("checkpoint", step)
    return CheckpointSaved(
        domain=DOMAIN,
        checkpoint_id=identity,
        run="run",
        step=step,
        tokens_seen=1,
        loss=1.0,
        shard_sequence=1,
        manifest_key="k",
        manifest_sha256=identity,
    )


SUBSCRIPTION = Subscription(channel="shards", durable="trainer", handlers={ShardCurated: record})


def make_runtime(bus: MemoryBus) -> Runtime:
    config = ClusterConfig(domain=DOMAIN)
    return Runtime.in_memory(name="trainer", config=config, bus=bus, blobs=MemoryBlobs(), pauses=SHORT)


@asynccontextmanager
async def recording(bus: MemoryBus, seen: Seen, *subscriptions: Subscription[Seen]) -> AsyncIterator[Runtime]:
    runtime = make_runtime(bus)
    async with running(runtime, ServiceParts(deps=seen, subscriptions=subscriptions or (SUBSCRIPTION,))):
        yield runtime


async def until(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while True:
            answer = condition()
            if answer if isinstance(answer, bool) else await answer:
                return
            await asyncio.sleep(0.005)


async def published(bus: MemoryBus, channel: str) -> list[Event]:
    return [entry.event async for entry in bus.read(f"{channel}.{DOMAIN}", follow=False)]


async def nothing_pending(bus: MemoryBus, *, durable: str = "trainer", channel: str = "shards") -> bool:
    """Tell whether the durable has nothing in hand and nothing new."""
    deliveries = bus.consume(f"{channel}.{DOMAIN}", durable=durable, max_ack_pending=100)
    try:
        async with asyncio.timeout(0.05):
            await anext(deliveries)
    except TimeoutError:
        return True
    return False


async def test_an_event_is_handled_published_and_acked() -> None:
    bus, seen = MemoryBus(ack_wait_s=0.1), Seen()
    async with recording(bus, seen) as runtime:
        await bus.publish(shard(DOMAIN, 1))
        await until(lambda: runtime.telemetry.value("handled", NAME) == 1)
    assert seen.events == [shard(DOMAIN, 1)]
    assert await published(bus, "checkpoints") == [checkpoint(1)]
    await asyncio.sleep(0.15)
    assert await nothing_pending(bus)


async def test_a_failure_is_retried() -> None:
    bus, seen = MemoryBus(), Seen(failures=[ValueError("once"), Retry("twice", delay_s=0)])
    async with recording(bus, seen) as runtime:
        await bus.publish(shard(DOMAIN, 1))
        await until(lambda: runtime.telemetry.value("handled", NAME) == 1)
    assert runtime.telemetry.value("retried", NAME) == 2
    assert await bus.dead_letters() == []


async def test_five_failures_bury_and_others_go_on() -> None:
    bus, seen = MemoryBus(), Seen(failures=[ValueError(f"failure {n}") for n in range(5)])
    async with recording(bus, seen) as runtime:
        await bus.publish(shard(DOMAIN, 1))
        await bus.publish(shard(DOMAIN, 2))
        await until(lambda: runtime.telemetry.value("handled", NAME) == 1)
    (letter,) = await bus.dead_letters()
    assert letter.reason == "failed 5 times, at last: ValueError: failure 4"
    assert letter.attempts == 5
    assert seen.events == [shard(DOMAIN, 2)]


async def test_waiting_never_exhausts() -> None:
    waits = [Retry("not frozen yet", delay_s=0, counts=False), Unavailable("the store is down")] * 20
    bus, seen = MemoryBus(ack_wait_s=0.3), Seen(failures=[*waits])
    async with recording(bus, seen) as runtime:
        await bus.publish(shard(DOMAIN, 1))
        await until(lambda: runtime.telemetry.value("handled", NAME) == 1)
    assert runtime.telemetry.value("waited", NAME) == len(waits)
    assert runtime.telemetry.value("retried", NAME) == 0
    assert len(seen.events) == 1
    assert await bus.dead_letters() == []


async def test_malformed_bytes_are_buried_and_others_go_on() -> None:
    bus, seen = MemoryBus(), Seen()
    async with recording(bus, seen) as runtime:
        await bus.publish_raw(f"shards.{DOMAIN}", b"\x00\xff")
        await bus.publish_raw(f"shards.{DOMAIN}", b"{}", headers={"ce-type": NAME})
        await bus.publish_raw(f"shards.{DOMAIN}", b"{}", headers={"ce-type": "jupiter.Unknown"})
        await bus.publish(shard(DOMAIN, 1))
        await until(lambda: runtime.telemetry.value("handled", NAME) == 1)
    reasons = [letter.reason for letter in await bus.dead_letters()]
    assert len(reasons) == 3
    assert "no ce-type header" in reasons[0]
    assert "shard_id: Field required" in reasons[1]
    assert "unknown event type 'jupiter.Unknown'" in reasons[2]


async def test_a_rejection_is_buried_at_once() -> None:
    bus, seen = MemoryBus(), Seen(failures=[Rejected("no text")])
    async with recording(bus, seen) as runtime:
        await bus.publish(shard(DOMAIN, 1))
        await until(lambda: runtime.telemetry.value("dead", NAME) == 1)
    assert [letter.reason for letter in await bus.dead_letters()] == ["no text"]
    assert [letter.service for letter in await bus.dead_letters()] == ["trainer"]


async def test_a_message_that_kills_its_workers_is_buried_unopened() -> None:
    bus, seen = MemoryBus(ack_wait_s=0.0), Seen()
    await bus.publish(shard(DOMAIN, 1))
    work = bus.consume(f"shards.{DOMAIN}", durable="trainer", max_ack_pending=1)
    for _ in range(DELIVERIES_MAX):
        await anext(work)
    async with recording(bus, seen) as runtime:
        await until(lambda: runtime.telemetry.value("dead", NAME) == 1)
    assert seen.events == []
    assert "killing the process" in (await bus.dead_letters())[0].reason


async def test_cancelled_work_is_never_acked() -> None:
    bus, began = MemoryBus(), asyncio.Event()

    async def forever(_: ShardCurated, __: None) -> None:
        began.set()
        await asyncio.Event().wait()

    parts = ServiceParts(
        deps=None, subscriptions=[Subscription(channel="shards", durable="trainer", handlers={ShardCurated: forever})]
    )
    await bus.publish(shard(DOMAIN, 1))
    async with running(make_runtime(bus), parts):
        await began.wait()
    again = await anext(bus.consume(f"shards.{DOMAIN}", durable="trainer", max_ack_pending=1))
    assert again.attempts == 2  # given back at once, not after ack_wait


async def test_a_stop_lets_work_in_hand_finish() -> None:
    bus, began, seen = MemoryBus(), asyncio.Event(), Seen()

    async def slowly(event: ShardCurated, seen: Seen) -> None:
        began.set()
        await asyncio.sleep(0.1)
        seen.events.append(event)

    subscription = Subscription(channel="shards", durable="trainer", handlers={ShardCurated: slowly})
    await bus.publish(shard(DOMAIN, 1))
    async with recording(bus, seen, subscription) as runtime:
        await began.wait()
    assert len(seen.events) == 1
    assert runtime.telemetry.value("handled", NAME) == 1


async def test_a_stop_gives_back_what_only_waits() -> None:
    bus, seen = MemoryBus(), Seen(failures=[Retry("not yet", delay_s=60, counts=False)])
    async with recording(bus, seen) as runtime:
        await bus.publish(shard(DOMAIN, 1))
        await until(lambda: runtime.telemetry.value("waited", NAME) == 1)
    again = await anext(bus.consume(f"shards.{DOMAIN}", durable="trainer", max_ack_pending=1))
    assert again.attempts == 2


async def test_long_work_keeps_its_message() -> None:
    bus, seen = MemoryBus(ack_wait_s=1.5), Seen()
    config = ClusterConfig.model_validate({"domain": DOMAIN, "nats": {"ack_wait_s": 1.5}})
    runtime = Runtime.in_memory(name="trainer", config=config, bus=bus, blobs=MemoryBlobs())

    async def slowly(event: ShardCurated, seen: Seen) -> None:
        seen.events.append(event)
        await asyncio.sleep(2.2)

    subscription = Subscription(channel="shards", durable="trainer", handlers={ShardCurated: slowly}, max_in_flight=2)
    await bus.publish(shard(DOMAIN, 1))
    async with running(runtime, ServiceParts(deps=seen, subscriptions=[subscription])):
        await until(lambda: runtime.telemetry.value("handled", NAME) == 1)
    assert len(seen.events) == 1


async def test_raw_documents_reach_their_handler() -> None:
    bus, seen = MemoryBus(), Seen()

    async def accept(data: bytes, seen: Seen) -> None:
        seen.raw.append(data)

    subscription = Subscription(channel="documents", durable="curator", handlers={}, raw=accept, max_in_flight=4)
    async with recording(bus, seen, subscription) as runtime:
        for number in range(10):
            await bus.publish_raw(f"documents.{DOMAIN}", b"%d" % number)
        await until(lambda: runtime.telemetry.value("handled", "documents") == 10)
    assert sorted(seen.raw) == [b"%d" % number for number in range(10)]


async def test_an_event_of_another_kind_is_acked() -> None:
    bus, seen = MemoryBus(), Seen()
    batch = BatchGenerated(
        domain=DOMAIN,
        batch_id=digest_of(1),
        generator_version=1,
        sequence=1,
        manifest_key="k",
        manifest_sha256=digest_of(1),
        samples=1,
        tokens=1,
        seconds=1,
    )
    other = Subscription[Seen](channel="batches", durable="trainer", handlers={})
    async with recording(bus, seen, other) as runtime:
        await bus.publish(batch)
        await until(lambda: runtime.telemetry.value("handled", "jupiter.BatchGenerated") == 1)


async def test_a_trace_goes_from_message_to_message() -> None:
    bus, seen = MemoryBus(), Seen()
    start = trace.Trace.new()
    trace.enter(start.header())
    await bus.publish(shard(DOMAIN, 1))
    async with recording(bus, seen) as runtime:
        await until(lambda: runtime.telemetry.value("handled", NAME) == 1)
    assert seen.traces == [start.trace_id]
    delivery = await anext(bus.consume(f"checkpoints.{DOMAIN}", durable="evaluator", max_ack_pending=1))
    assert delivery.headers["traceparent"].split("-")[1] == start.trace_id


async def test_a_failing_background_task_ends_the_service() -> None:
    async def broken() -> None:
        raise ValueError("the trainer diverged")

    async def patient() -> None:
        await asyncio.Event().wait()

    closed = asyncio.Event()

    async def close() -> None:
        closed.set()

    parts = ServiceParts(deps=None, background=[broken, patient], close=close)
    runtime = make_runtime(MemoryBus())
    with pytest.raises(ValueError, match="diverged"):
        await serve(runtime, parts)
    assert closed.is_set()


async def test_a_background_task_may_end() -> None:
    bus, seen = MemoryBus(), Seen()

    async def brief() -> None:
        seen.raw.append(b"done")

    runtime = make_runtime(bus)
    async with running(runtime, ServiceParts(deps=seen, subscriptions=[SUBSCRIPTION], background=[brief])):
        await bus.publish(shard(DOMAIN, 1))
        await until(lambda: len(seen.events) == 1)
    assert seen.raw == [b"done"]


async def test_the_newest_status_gets_through() -> None:
    bus = MemoryBus()
    runtime = make_runtime(bus)
    began = asyncio.get_running_loop().time()
    for done in range(100):
        await runtime.status("training", done=done, total=99, unit="steps", shard_sequence=done)
        await asyncio.sleep(0.001)

    async def newest_is_99() -> bool:
        entries = [entry.event async for entry in bus.read(f"status.{DOMAIN}.>", follow=False)]
        return [event.done for event in entries if isinstance(event, ServiceStatus)] == [99]

    await until(newest_is_99)
    passed_s = asyncio.get_running_loop().time() - began
    assert await bus.last_sequence("status") <= passed_s / SHORT.status_s + 2
    bus.available = False
    await runtime.status("idle")
    await runtime.close()
