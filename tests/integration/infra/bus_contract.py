"""What both buses promise. `test_bus_contract.py` runs these on the in-memory and on the real one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

import pytest

from jupiter.bus import Bus, Delivery, Outstanding
from jupiter.errors import NotFound, Rejected
from jupiter.events import DocumentAccepted, ServiceStatus, ShardCurated
from jupiter.records import digest_of

T = TypeVar("T")
WAIT_S = 60.0


def shard(domain: str, number: int) -> ShardCurated:
    identity = digest_of(number)
    return ShardCurated(
        domain=domain,
        shard_id=identity,
        batch_id=identity,
        generator_version=1,
        manifest_key=f"shards/{domain}/{number}/manifest.json",
        manifest_sha256=identity,
        samples=number,
        tokens=1,
        real_tokens=0,
        accepted=1,
        candidates=1,
    )


def accepted(domain: str, source: str) -> DocumentAccepted:
    return DocumentAccepted(
        domain=domain,
        document_id=digest_of(source),
        key="k",
        kind="text",
        group="g",
        source=source,
        split="training",
        chars=1,
        chunks=1,
    )


async def first(iterator: AsyncIterator[T]) -> T:
    async with asyncio.timeout(WAIT_S):
        return await anext(iterator)


async def none_within(iterator: AsyncIterator[Delivery], seconds: float) -> None:
    """Assert that nothing comes; the iterator is spent afterwards."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(seconds):
            await anext(iterator)


async def an_event_is_stored_once(bus: Bus, domain: str) -> None:
    one = await bus.publish(shard(domain, 1))
    again = await bus.publish(shard(domain, 1))
    assert (one.duplicate, again.duplicate) == (False, True)
    assert one.sequence == again.sequence
    assert await bus.last_sequence("shards") >= one.sequence


async def work_arrives_in_order_and_ends_with_ack(bus: Bus, domain: str) -> None:
    for number in range(3):
        await bus.publish(shard(domain, number))
    work = bus.consume(f"shards.{domain}", durable="worker", max_ack_pending=1)
    for number in range(3):
        delivery = await first(work)
        assert delivery.attempts == 1
        assert delivery.subject == f"shards.{domain}"
        assert delivery.headers["ce-type"] == "jupiter.ShardCurated"
        assert delivery.headers["ce-specversion"] == "1.0"
        assert delivery.headers["ce-id"] == shard(domain, number).event_id
        assert delivery.headers["traceparent"].startswith("00-")
        await delivery.ack()
    await none_within(work, 0.3)


async def an_unacked_message_comes_again(bus: Bus, domain: str) -> None:
    await bus.publish(shard(domain, 1))
    work = bus.consume(f"shards.{domain}", durable="worker", max_ack_pending=1)
    lost = await first(work)
    again = await first(work)
    assert (again.sequence, again.attempts) == (lost.sequence, 2)
    await again.ack()


async def a_heartbeat_keeps_a_message(bus: Bus, domain: str) -> None:
    await bus.publish(shard(domain, 1))
    work = bus.consume(f"shards.{domain}", durable="worker", max_ack_pending=1)
    held = await first(work)

    async def beat() -> None:
        while True:
            await held.in_progress()
            await asyncio.sleep(0.1)

    beating = asyncio.create_task(beat())
    await none_within(work, 3.0)  # the tests' ack_wait is 2 s
    beating.cancel()
    await held.ack()


async def nak_delays_and_counts(bus: Bus, domain: str) -> None:
    await bus.publish(shard(domain, 1))
    work = bus.consume(f"shards.{domain}", durable="worker", max_ack_pending=1)
    delivery = await first(work)
    started = asyncio.get_running_loop().time()
    await delivery.nak(delay_s=0.3)
    again = await first(work)
    assert asyncio.get_running_loop().time() - started >= 0.25
    assert again.attempts == 2
    await again.nak(delay_s=0)
    third = await first(work)
    assert third.attempts == 3
    await third.ack()


async def pending_work_is_bounded(bus: Bus, domain: str) -> None:
    for number in range(2):
        await bus.publish(shard(domain, number))
    work = bus.consume(f"shards.{domain}", durable="worker", max_ack_pending=1)
    delivery = await first(work)
    await none_within(bus.consume(f"shards.{domain}", durable="worker", max_ack_pending=1), 0.3)
    await delivery.ack()


async def two_durables_each_get_everything(bus: Bus, domain: str) -> None:
    await bus.publish(shard(domain, 1))
    for durable in ("one", "two"):
        delivery = await first(bus.consume(f"shards.{domain}", durable=durable, max_ack_pending=1))
        await delivery.ack()


async def domains_do_not_mix(bus: Bus, domain: str) -> None:
    await bus.publish(shard(f"{domain}_other", 1))
    await bus.publish(shard(domain, 2))
    delivery = await first(bus.consume(f"shards.{domain}", durable="worker", max_ack_pending=1))
    assert delivery.subject == f"shards.{domain}"
    await delivery.ack()


async def a_log_is_read_in_order_from_an_offset(bus: Bus, domain: str) -> None:
    receipts = [await bus.publish(shard(domain, number)) for number in range(5)]
    whole = [entry async for entry in bus.read(f"shards.{domain}", follow=False)]
    assert [entry.sequence for entry in whole] == [receipt.sequence for receipt in receipts]
    assert [entry.event for entry in whole] == [shard(domain, number) for number in range(5)]
    rest = [entry async for entry in bus.read(f"shards.{domain}", after=receipts[2].sequence, follow=False)]
    assert [entry.sequence for entry in rest] == [receipt.sequence for receipt in receipts[3:]]
    assert [entry async for entry in bus.read(f"shards.{domain}_none", follow=False)] == []


async def a_followed_log_brings_what_comes_later(bus: Bus, domain: str) -> None:
    await bus.publish(shard(domain, 1))
    log = bus.read(f"shards.{domain}")
    assert (await first(log)).event == shard(domain, 1)
    later = asyncio.create_task(first(log))
    await asyncio.sleep(0.05)
    await bus.publish(shard(domain, 2))
    assert (await later).event == shard(domain, 2)


async def an_unreadable_entry_is_skipped_in_a_log(bus: Bus, domain: str) -> None:
    await bus.publish(shard(domain, 1))
    await bus.publish_raw(f"shards.{domain}", b"\xff nonsense")
    await bus.publish(shard(domain, 2))
    events = [entry.event async for entry in bus.read(f"shards.{domain}", follow=False)]
    assert events == [shard(domain, 1), shard(domain, 2)]


async def only_the_last_status_is_kept(bus: Bus, domain: str) -> None:
    for number in range(3):
        await bus.publish(
            ServiceStatus(domain=domain, service="trainer", instance="one", time=str(number), stage="training")
        )
    kept = [entry.event async for entry in bus.read(f"status.{domain}.>", follow=False)]
    assert [event.time for event in kept if isinstance(event, ServiceStatus)] == ["2"]


async def a_buried_message_can_be_read_replayed_and_dropped(bus: Bus, domain: str) -> None:
    before, count = await bus.dead_letters(limit=1000), await bus.dead_letter_count()
    last = before[-1].sequence if before else 0
    await bus.publish_raw(f"documents.{domain}", b"\x00 not json", headers={"x-who": "me"})
    work = bus.consume(f"documents.{domain}", durable="curator", max_ack_pending=1)
    delivery = await first(work)
    for _ in range(2):  # a crash between bury and term doubles nothing
        await bus.bury(delivery, service="curator", reason="not JSON:\nüñí " + "x" * 10_000)
    await delivery.term()
    assert await bus.dead_letter_count() == count + 1
    (letter,) = await bus.dead_letters(after=last)
    assert (letter.subject, letter.origin_sequence) == (f"documents.{domain}", delivery.sequence)
    assert (letter.data, letter.attempts, letter.service) == (b"\x00 not json", 1, "curator")
    assert letter.reason.startswith("not JSON:\nüñí ")
    assert letter.headers["x-who"] == "me"

    await bus.replay_dead_letter(letter.sequence)
    assert await bus.dead_letters(after=last) == []
    again = await first(work)
    assert (again.data, again.attempts) == (b"\x00 not json", 1)
    assert again.headers["x-who"] == "me"
    await bus.bury(again, service="curator", reason="still not JSON")
    await again.term()
    (letter,) = await bus.dead_letters(after=last)
    await bus.drop_dead_letter(letter.sequence)
    assert await bus.dead_letters(after=last) == []
    assert await bus.dead_letter_count() == count
    with pytest.raises(NotFound):
        await bus.drop_dead_letter(letter.sequence)
    with pytest.raises(NotFound):
        await bus.replay_dead_letter(letter.sequence)


async def a_backlog_counts_what_is_not_acked(bus: Bus, domain: str) -> None:
    subject = f"shards.{domain}"
    for number in range(3):
        await bus.publish(shard(domain, number))
    assert await bus.backlog(subject, durable="worker") == 0  # it never consumed
    work = bus.consume(subject, durable="worker", max_ack_pending=1)
    delivery = await first(work)
    assert await bus.backlog(subject, durable="worker") == 3
    await delivery.ack()
    assert await bus.backlog(subject, durable="worker") == 2


async def what_is_outstanding_is_told_by_sequence(bus: Bus, domain: str) -> None:
    subject = f"shards.{domain}"
    sequences = [(await bus.publish(shard(domain, number))).sequence for number in range(4)]
    assert await bus.outstanding(subject, durable="worker") == Outstanding()  # it never consumed
    work = bus.consume(subject, durable="worker", max_ack_pending=3)
    one, two, three = [await first(work) for _ in range(3)]
    await two.ack()
    place = await bus.outstanding(subject, durable="worker")
    assert place.unacked == 2
    assert place.acked_through < sequences[0]
    assert sequences[2] <= place.delivered_through < sequences[3]
    await one.ack()
    place = await bus.outstanding(subject, durable="worker")
    assert (place.unacked, sequences[1] <= place.acked_through < sequences[2]) == (1, True)
    await three.ack()
    place = await bus.outstanding(subject, durable="worker")
    assert (place.unacked, sequences[2] <= place.acked_through < sequences[3]) == (0, True)


async def an_oversize_event_is_a_clear_error(bus: Bus, domain: str) -> None:
    with pytest.raises(Rejected, match="an event may have 65536"):
        await bus.publish(accepted(domain, "x" * 70_000))


async def a_ready_bus_says_so(bus: Bus, domain: str) -> None:
    await bus.ready()


CONTRACT = (
    an_event_is_stored_once,
    work_arrives_in_order_and_ends_with_ack,
    an_unacked_message_comes_again,
    a_heartbeat_keeps_a_message,
    nak_delays_and_counts,
    pending_work_is_bounded,
    two_durables_each_get_everything,
    domains_do_not_mix,
    a_log_is_read_in_order_from_an_offset,
    a_followed_log_brings_what_comes_later,
    an_unreadable_entry_is_skipped_in_a_log,
    only_the_last_status_is_kept,
    a_buried_message_can_be_read_replayed_and_dropped,
    a_backlog_counts_what_is_not_acked,
    what_is_outstanding_is_told_by_sequence,
    an_oversize_event_is_a_clear_error,
    a_ready_bus_says_so,
)
