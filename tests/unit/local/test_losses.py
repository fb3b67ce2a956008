"""Lost work is found whatever else is going on, and work that is still to come is never called lost."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from jupiter.bus import Delivery, Outstanding
from jupiter.bus.codec import encode
from jupiter.bus.memory import MemoryBus
from jupiter.events import (
    BatchGenerated,
    GenerationItem,
    GenerationRequested,
    GenerationVoided,
    GeneratorPromoted,
    ShardCurated,
)
from jupiter.local.losses import count_lost
from jupiter.lost_work import Work, how_many_lost
from jupiter.records import Sampling, digest_of

DOMAIN = "made_up"
IN_HAND_MAX = 16
NOTHING = {"requests": 0, "batches": 0, "documents_doubled": 0, "flips_doubled": 0}


def work_id(number: int) -> str:
    return digest_of("work", number)


def requested(number: int) -> GenerationRequested:
    item = GenerationItem(
        document_id=digest_of("document"), chunk_index=0, task="restate", audience="a", difficulty="b", seed=number
    )
    return GenerationRequested(
        domain=DOMAIN,
        request_id=work_id(number),
        generator_version=1,
        sequence=number + 1,
        items=[item],
        sampling=Sampling(),
    )


def batch(number: int) -> BatchGenerated:
    return BatchGenerated(
        domain=DOMAIN,
        batch_id=work_id(number),
        generator_version=1,
        sequence=number,
        manifest_key="key",
        manifest_sha256=digest_of("manifest"),
        samples=1,
        tokens=1,
        seconds=1.0,
    )


def voided(number: int) -> GenerationVoided:
    return GenerationVoided(domain=DOMAIN, request_id=work_id(number), generator_version=1, reason="because")


def shard(number: int) -> ShardCurated:
    return ShardCurated(
        domain=DOMAIN,
        shard_id=work_id(number),
        batch_id=work_id(number),
        generator_version=1,
        manifest_key="key",
        manifest_sha256=digest_of("manifest"),
        samples=1,
        tokens=1,
        real_tokens=0,
        accepted=1,
        candidates=1,
        dropped={},
        batch_sequence=number,
    )


async def asked(bus: MemoryBus, *, batches: int = 3) -> list[Delivery]:
    """Request batches; return the deliveries that the generator has in hand."""
    for number in range(batches):
        await bus.publish(requested(number))
    work = bus.consume(f"generation.{DOMAIN}", durable="generator", max_ack_pending=IN_HAND_MAX)
    return [await anext(work) for _ in range(batches)]


async def made(bus: MemoryBus, *, batches: int = 3) -> list[Delivery]:
    """Make that many batches; return the deliveries that the curator has in hand."""
    for number, delivery in enumerate(await asked(bus, batches=batches)):
        await bus.publish(batch(number))
        await delivery.ack()
    work = bus.consume(f"batches.{DOMAIN}", durable="curator-batches", max_ack_pending=IN_HAND_MAX)
    return [await anext(work) for _ in range(batches)]


async def test_work_that_nobody_began_is_not_lost() -> None:
    bus = MemoryBus()
    for number in range(3):
        await bus.publish(requested(number))
        await bus.publish(batch(number + 10))
    assert await count_lost(bus, domain=DOMAIN) == NOTHING


async def test_work_in_hand_is_not_lost_until_it_is_acked_without_a_trace() -> None:
    bus = MemoryBus()
    first, second, third = await asked(bus)
    assert await count_lost(bus, domain=DOMAIN) == NOTHING
    await second.ack()
    assert await count_lost(bus, domain=DOMAIN) == {**NOTHING, "requests": 1}
    await bus.publish(voided(1))
    assert await count_lost(bus, domain=DOMAIN) == NOTHING
    await first.ack()
    await third.ack()
    assert await count_lost(bus, domain=DOMAIN) == {**NOTHING, "requests": 2}


async def test_finished_work_that_is_not_acked_hides_no_loss() -> None:
    bus = MemoryBus()
    first, second, third = await asked(bus)
    await bus.publish(batch(0))  # and the generator dies before it acks
    await second.ack()
    await third.ack()
    assert await count_lost(bus, domain=DOMAIN) == {**NOTHING, "requests": 2}
    assert first.attempts == 1


async def test_waiting_work_hides_no_loss() -> None:
    bus = MemoryBus()
    for delivery in await asked(bus):
        await delivery.ack()
    for number in range(10, 20):
        await bus.publish(requested(number))
    assert await count_lost(bus, domain=DOMAIN) == {**NOTHING, "requests": 3}


async def test_a_buried_request_is_excused_once_and_hides_no_other_loss() -> None:
    bus = MemoryBus()
    first, second, third = await asked(bus)
    await bus.bury(first, service="generator", reason="poison")
    await first.term()
    await bus.publish(voided(0))  # the controller gives up what was buried
    await second.ack()
    assert await count_lost(bus, domain=DOMAIN) == {**NOTHING, "requests": 1}
    await bus.publish(batch(1))
    assert await count_lost(bus, domain=DOMAIN) == NOTHING
    await third.ack()
    assert await count_lost(bus, domain=DOMAIN) == {**NOTHING, "requests": 1}


async def test_a_dead_letter_accounts_for_its_own_request_also_when_it_is_replayed() -> None:
    bus = MemoryBus()
    first, second, third = await asked(bus)
    await bus.bury(second, service="generator", reason="poison")
    for delivery in (first, second, third):
        await delivery.ack()
    assert await count_lost(bus, domain=DOMAIN) == {**NOTHING, "requests": 2}
    [letter] = await bus.dead_letters()
    await bus.replay_dead_letter(letter.sequence)
    assert await count_lost(bus, domain=DOMAIN) == {**NOTHING, "requests": 2}
    work = bus.consume(f"generation.{DOMAIN}", durable="generator", max_ack_pending=IN_HAND_MAX)
    await (await anext(work)).ack()
    assert await count_lost(bus, domain=DOMAIN) == {**NOTHING, "requests": 3}


async def test_a_batch_that_quarantine_withdrew_is_not_lost_and_one_without_a_shard_is() -> None:
    bus = MemoryBus()
    deliveries = await made(bus)
    await bus.publish(voided(0))
    await bus.publish(shard(1))
    for delivery in deliveries:
        await delivery.ack()
    assert await count_lost(bus, domain=DOMAIN) == {**NOTHING, "batches": 1}


async def test_a_void_in_the_curators_hands_excuses_no_lost_batch() -> None:
    bus = MemoryBus()
    await made(bus, batches=0)
    await bus.publish(requested(0))
    await bus.publish(voided(0))
    await bus.publish(requested(1))
    await bus.publish(batch(1))
    work = bus.consume(f"batches.{DOMAIN}", durable="curator-batches", max_ack_pending=IN_HAND_MAX)
    void, lost = await anext(work), await anext(work)
    await lost.ack()
    assert await count_lost(bus, domain=DOMAIN) == {**NOTHING, "batches": 1}
    await void.ack()
    assert await count_lost(bus, domain=DOMAIN) == {**NOTHING, "batches": 1}


MESSAGES = st.lists(
    st.tuples(
        st.sampled_from(("finished", "open", "buried", "other")),
        st.sampled_from(("acked", "unacked")),
    ),
    max_size=12,
)


@given(MESSAGES, st.integers(min_value=0, max_value=12))
def test_nothing_that_is_still_to_come_is_called_lost_and_what_is_acked_is_never_excused_by_its_number(
    messages: Sequence[tuple[str, str]], delivered: int
) -> None:
    """Against the truth, which the server does not tell: which message of those in hand is acked."""
    unacked = [at for at, (_, end) in enumerate(messages[:delivered], start=1) if end == "unacked"]
    place = Outstanding(
        acked_through=min(unacked, default=min(delivered, len(messages)) + 1) - 1,
        delivered_through=min(delivered, len(messages)),
        unacked=len(unacked),
    )
    of_kind = {
        kind: [at for at, (found, _) in enumerate(messages, start=1) if found == kind]
        for kind in ("finished", "open", "buried", "other")
    }
    asked = {at: work_id(at) for kind in ("finished", "open", "buried") for at in of_kind[kind]}
    work = Work(asked=asked, others=of_kind["other"], buried=of_kind["buried"], place=place)
    found = how_many_lost(work, accounted={work_id(at) for at in of_kind["finished"]})
    lost = [at for at in of_kind["open"] if at <= place.delivered_through and at not in unacked]
    finished_in_hand = [at for at in unacked if at not in of_kind["open"]]
    assert found <= len(lost)
    if len(finished_in_hand) <= (unacked[:1] == finished_in_hand[:1]):
        assert found == len(lost)


async def test_a_fact_that_is_stored_twice_is_told() -> None:
    bus = MemoryBus()
    flip = GeneratorPromoted(
        domain=DOMAIN,
        version=2,
        previous_version=1,
        ledger_sequence=3,
        manifest_key="key",
        manifest_sha256=digest_of("manifest"),
        reason="better",
    )
    encoded = encode(flip, source="jupiter/test")
    for message_id in ("once", "again"):
        await bus.publish_raw(encoded.subject, encoded.data, message_id=message_id, headers=encoded.headers)
    assert await count_lost(bus, domain=DOMAIN) == {**NOTHING, "flips_doubled": 1}
