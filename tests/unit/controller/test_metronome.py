"""The metronome and the projection it plans from."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupiter.bus.codec import decode
from jupiter.controller.accounting import account
from jupiter.controller.conductor import Conductor
from jupiter.controller.metronome import plan
from jupiter.controller.projection import Projection
from jupiter.events import (
    BatchGenerated,
    BenchmarkFrozen,
    CheckpointSaved,
    Event,
    GenerationRequested,
    GenerationVoided,
    GeneratorLoaded,
    ServiceStatus,
    ShardCurated,
)
from jupiter.ledger import LedgerEntry
from jupiter.records import digest_of
from jupiter.service import running
from tests.unit.controller.cases import DOMAIN, first_entry
from tests.unit.controller.cycle import Cycle, accepted, eventually

ANY = Path("unused")


def ready(documents: int, *, chunks: int = 2) -> Projection:
    """A state in which nothing is missing."""
    state = Projection(domain=DOMAIN)
    for number in range(documents):
        state.apply(accepted(digest_of("document", number), chunks=chunks))
    state.apply(
        BenchmarkFrozen(
            domain=DOMAIN, digest=digest_of("b"), manifest_key="b", manifest_sha256=digest_of("m"), items=9, clusters=3
        )
    )
    state.apply(loaded(first_entry()))
    return state


def loaded(entry: LedgerEntry, instance: str = "generator-0") -> GeneratorLoaded:
    return GeneratorLoaded(
        domain=DOMAIN,
        version=entry.version,
        ledger_sequence=entry.sequence,
        instance=instance,
        manifest_sha256=entry.manifest_sha256,
        seconds=0.1,
    )


def batch_of(request: GenerationRequested) -> BatchGenerated:
    return BatchGenerated(
        domain=DOMAIN,
        batch_id=request.request_id,
        generator_version=request.generator_version,
        sequence=request.sequence,
        manifest_key="k",
        manifest_sha256=digest_of("m"),
        samples=len(request.items),
        tokens=10,
        seconds=1.0,
    )


def shard_of(request: GenerationRequested) -> ShardCurated:
    return ShardCurated(
        domain=DOMAIN,
        shard_id=request.request_id,
        batch_id=request.request_id,
        generator_version=request.generator_version,
        manifest_key="k",
        manifest_sha256=digest_of("m"),
        samples=2,
        tokens=20,
        real_tokens=7,
        accepted=1,
        candidates=2,
    )


def voided(request: GenerationRequested) -> GenerationVoided:
    return GenerationVoided(
        domain=DOMAIN, request_id=request.request_id, generator_version=request.generator_version, reason="flip"
    )


def made(state: Projection, requests: tuple[GenerationRequested, ...]) -> None:
    """Let every request become a shard that was trained on."""
    for request in requests:
        state.apply(batch_of(request))
        state.apply(shard_of(request), request.sequence)
        state.apply(trained(request.sequence))


def trained(shard_sequence: int) -> ServiceStatus:
    return ServiceStatus(
        domain=DOMAIN,
        service="trainer",
        instance="t",
        time="2026-01-01T00:00:00Z",
        stage="training",
        figures={"shard_sequence": shard_sequence},
    )


def planned(state: Projection, cycle: Cycle, live: LedgerEntry | None = None) -> tuple[GenerationRequested, ...]:
    """Plan and take the requests as published."""
    requests = plan(state, live or first_entry(), cycle.config, cycle.domain).requests
    for request in requests:
        state.apply(request)
    return requests


def test_it_waits_for_what_is_missing_and_says_so() -> None:
    cycle = Cycle(ANY)
    nothing = plan(Projection(domain=DOMAIN), None, cycle.config, cycle.domain)
    assert nothing.requests == ()
    assert nothing.waits_for == (
        "a generator to import the base model",
        "the benchmark to be frozen",
        "documents to train on",
    )
    state = ready(3)
    state.serving.clear()
    assert plan(state, first_entry(), cycle.config, cycle.domain).waits_for == ("a generator to load version 1",)
    held_out = Projection(domain=DOMAIN)
    held_out.apply(accepted(digest_of("x"), split="held_out"))
    assert "documents to train on" in plan(held_out, first_entry(), cycle.config, cycle.domain).waits_for


def test_it_keeps_the_allowance_in_flight() -> None:
    cycle, state = Cycle(ANY, in_flight_requests_max=3), ready(20)
    first = planned(state, cycle)
    assert [request.sequence for request in first] == [1, 2, 3]
    assert planned(state, cycle) == ()
    state.apply(batch_of(first[0]))
    assert planned(state, cycle) == ()  # a batch is still in flight: the curator may be the slow one
    state.apply(shard_of(first[0]), 1)
    assert [request.sequence for request in planned(state, cycle)] == [4]


def test_it_pauses_while_the_trainer_is_behind() -> None:
    cycle, state = Cycle(ANY, in_flight_requests_max=2, shards_ahead_max=2), ready(20)
    for request in planned(state, cycle):
        state.apply(batch_of(request))
        state.apply(shard_of(request), 10 * request.sequence)
    paused = plan(state, first_entry(), cycle.config, cycle.domain)
    assert paused.requests == ()
    assert paused.waits_for == ("the trainer: 2 shards are ahead of it",)
    state.apply(trained(10))
    assert len(planned(state, cycle)) == 2


def test_a_checkpoint_says_how_far_the_trainer_is_too() -> None:
    cycle, state = Cycle(ANY, shards_ahead_max=1), ready(20)
    made_first = planned(state, cycle)[0]
    state.apply(batch_of(made_first))
    state.apply(shard_of(made_first), 5)
    assert state.shards_ahead() == 1
    state.apply(
        CheckpointSaved(
            domain=DOMAIN,
            checkpoint_id=digest_of("c"),
            run="run1",
            step=10,
            tokens_seen=1,
            loss=1.0,
            shard_sequence=5,
            manifest_key="k",
            manifest_sha256=digest_of("m"),
        )
    )
    assert state.shards_ahead() == 0


@settings(max_examples=40, deadline=None)
@given(documents=st.integers(1, 30), per_request=st.integers(1, 12), rounds=st.integers(1, 12))
def test_every_document_comes_before_any_repeats(documents: int, per_request: int, rounds: int) -> None:
    cycle, state = Cycle(ANY, samples_per_request=per_request, in_flight_requests_max=2), ready(documents)
    asked: Counter[str] = Counter()
    for _ in range(rounds):
        requests = planned(state, cycle)
        for request in requests:
            asked.update(item.document_id for item in request.items)
        made(state, requests)
        assert max(asked.values()) - min(asked.get(document, 0) for document in state.documents) <= 1


def test_a_late_document_comes_next_and_then_waits_its_turn() -> None:
    cycle, state = Cycle(ANY, samples_per_request=2, in_flight_requests_max=1), ready(4)
    for _ in range(6):
        made(state, planned(state, cycle))
    late = digest_of("late")
    state.apply(accepted(late))
    uses = []
    for _ in range(5):
        requests = planned(state, cycle)
        uses.append(sum(item.document_id == late for item in requests[0].items))
        made(state, requests)
    assert uses[0] == 1
    assert sum(uses) <= 3


def test_passages_of_a_document_come_in_turn() -> None:
    cycle, state = Cycle(ANY, samples_per_request=1, in_flight_requests_max=1), ready(1, chunks=3)
    chunks = []
    for _ in range(6):
        requests = planned(state, cycle)
        chunks.append(requests[0].items[0].chunk_index)
        made(state, requests)
    assert chunks == [0, 1, 2, 0, 1, 2]


def test_tasks_come_by_weight_and_all_settings_are_the_domains() -> None:
    cycle, state = Cycle(ANY, samples_per_request=200, in_flight_requests_max=4), ready(50)
    items = [item for request in planned(state, cycle) for item in request.items]
    tasks = Counter(item.task for item in items)
    assert set(tasks) == {"explanation", "question_answer"}
    assert 0.67 <= tasks["question_answer"] / len(items) <= 0.83
    assert {item.audience for item in items} == set(cycle.domain.audiences)
    assert {item.difficulty for item in items} == set(cycle.domain.difficulties)
    assert len({item.seed for item in items}) > 0.99 * len(items)


@settings(max_examples=20, deadline=None)
@given(order=st.randoms(use_true_random=False))
def test_plans_do_not_depend_on_the_order_in_which_channels_are_read(order: random.Random) -> None:
    cycle, state = Cycle(ANY), ready(12)
    events: list[Event] = [*state.documents.values(), loaded(first_entry())]
    assert state.benchmark is not None
    events.append(state.benchmark)
    requests = planned(state, cycle)
    events += [*requests, batch_of(requests[0]), shard_of(requests[0]), voided(requests[1])]
    for event in events:
        state.apply(event)  # twice: changes nothing
    shuffled = list(events)
    order.shuffle(shuffled)
    other = Projection(domain=DOMAIN)
    for event in shuffled:
        other.apply(event)
    assert other.accounting() == state.accounting()
    assert plan(other, first_entry(), cycle.config, cycle.domain) == plan(
        state, first_entry(), cycle.config, cycle.domain
    )


def test_after_a_flip_the_new_version_is_asked_and_the_old_requests_hold_nobody_up() -> None:
    cycle, state = Cycle(ANY, in_flight_requests_max=2), ready(40)
    old = planned(state, cycle)
    flipped = first_entry(sequence=2, version=2, previous_version=1, action="promoted")
    assert plan(state, flipped, cycle.config, cycle.domain).waits_for == ("a generator to load version 2",)
    state.apply(loaded(flipped))
    new = planned(state, cycle, flipped)
    assert {request.generator_version for request in new} == {2}
    assert [request.sequence for request in new] == [3, 4]
    assert not {request.request_id for request in new} & {request.request_id for request in old}


def test_documents_of_a_voided_request_come_first_again() -> None:
    cycle, state = Cycle(ANY, samples_per_request=3, in_flight_requests_max=1), ready(9)
    old = planned(state, cycle)[0]
    state.apply(voided(old))
    again = planned(state, cycle)[0]
    assert {item.document_id for item in again.items} == {item.document_id for item in old.items}


@settings(max_examples=40, deadline=None)
@given(fates=st.lists(st.sampled_from(["open", "batch", "shard", "void", "void and batch"]), min_size=1, max_size=30))
def test_everything_is_accounted_for(fates: list[str]) -> None:
    cycle, state = Cycle(ANY, in_flight_requests_max=len(fates), shards_ahead_max=99), ready(3)
    for request, fate in zip(planned(state, cycle), fates, strict=True):
        if "void" in fate:
            state.apply(voided(request))
        if "batch" in fate or fate == "shard":
            state.apply(batch_of(request))
        if fate == "shard":
            state.apply(shard_of(request), request.sequence)
    seen = state.accounting()
    assert seen.requests == seen.batches + seen.voided + seen.open_requests == len(fates)
    assert seen.batches == seen.shards + seen.open_batches + seen.buried_batches
    assert seen.lost == 0
    assert seen.buried_batches == fates.count("void and batch")


def test_work_that_nobody_asked_for_counts_as_lost() -> None:
    cycle, state = Cycle(ANY, in_flight_requests_max=1), ready(3)
    request = planned(state, cycle)[0]
    stranger = request.model_copy(update={"request_id": digest_of("stranger")})
    state.apply(shard_of(request), 1)
    assert state.accounting().lost == 1  # a shard whose batch no event tells of
    state.apply(batch_of(stranger))
    assert state.accounting().lost == 2


async def test_a_restarted_controller_goes_on_where_it_was(tmp_path: Path) -> None:
    cycle = Cycle(tmp_path, in_flight_requests_max=3)

    async def conduct(until: Any) -> None:
        runtime = cycle.runtime()
        parts = await cycle.parts(runtime)
        async with running(runtime, parts):
            await eventually(lambda: until(parts.deps.state))

    await cycle.import_base()
    await cycle.freeze_benchmark()
    await cycle.publish_documents(10)
    await cycle.load(first_entry())
    await conduct(lambda state: len(state.requests) == 3)
    await conduct(lambda state: len(state.requests) == 3 and state.loads)
    requests = await cycle.events("generation")
    assert len(requests) == 3
    assert isinstance(requests[0], GenerationRequested)
    await cycle.bus.publish(batch_of(requests[0]))
    await cycle.bus.publish(shard_of(requests[0]))
    await conduct(lambda state: len(state.requests) == 4)
    assert [getattr(event, "sequence", 0) for event in await cycle.events("generation")] == [1, 2, 3, 4]


async def test_two_controllers_ask_for_everything_once(tmp_path: Path) -> None:
    cycle = Cycle(tmp_path, in_flight_requests_max=4)
    await cycle.import_base()
    await cycle.freeze_benchmark()
    await cycle.publish_documents(10)
    await cycle.load(first_entry())
    one, two = cycle.runtime(instance="one"), cycle.runtime(instance="two")
    parts = await cycle.parts(one), await cycle.parts(two)
    async with running(one, parts[0]), running(two, parts[1]):
        await eventually(lambda: all(len(part.deps.state.requests) == 4 for part in parts))
    assert len(await cycle.events("generation")) == 4


async def test_what_another_controller_asked_for_first_is_what_counts(tmp_path: Path) -> None:
    """Two controllers that know different documents make different requests of one id: the stream keeps one of them."""
    cycle = Cycle(tmp_path, in_flight_requests_max=1)
    await cycle.import_base()
    runtime = cycle.runtime(instance="first")
    async with running(runtime, await cycle.parts(runtime)):
        await eventually(cycle.ledger)
    await cycle.freeze_benchmark()
    await cycle.publish_documents(3)
    await cycle.load(first_entry())
    behind = (await cycle.parts(cycle.runtime(instance="behind"))).deps
    await cycle.publish_documents(10)
    ahead = (await cycle.parts(cycle.runtime(instance="ahead"))).deps
    for deps in (ahead, behind):
        await Conductor(deps).round()
    for deps in (ahead, behind):
        await deps.following.catch_up()
    [request] = await cycle.events("generation")
    assert isinstance(request, GenerationRequested)
    asked = {item.document_id for item in request.items}
    assert behind.state.uses.keys() == ahead.state.uses.keys() == asked


async def test_what_is_buried_makes_room_again(tmp_path: Path) -> None:
    """A poisonous request and a poisonous batch: both end in the dead letters, and the cycle goes on."""
    cycle = Cycle(tmp_path, in_flight_requests_max=2)
    await cycle.import_base()
    await cycle.freeze_benchmark()
    await cycle.publish_documents(10)
    await cycle.load(first_entry())
    runtime = cycle.runtime()
    parts = await cycle.parts(runtime)
    state = parts.deps.state
    async with running(runtime, parts):
        await eventually(lambda: len(state.requests) == 2)
        requests = cycle.bus.consume(f"generation.{DOMAIN}", durable="generator", max_ack_pending=2)
        poison = await anext(requests)
        await cycle.bus.bury(poison, service="generator", reason="unknown task")
        await poison.term()
        fine = decode((delivery := await anext(requests)).data, delivery.headers)
        assert isinstance(fine, GenerationRequested)
        await cycle.bus.publish(batch_of(fine))
        await delivery.ack()
        batch = await anext(cycle.bus.consume(f"batches.{DOMAIN}", durable="curator-batches", max_ack_pending=1))
        await cycle.bus.bury(batch, service="curator", reason="not a batch")
        await batch.term()
        await eventually(lambda: len(state.requests) == 4)
        seen = await account(parts.deps)
    assert (seen.voided, seen.buried_batches, seen.lost) == (1, 1, 0)
    reasons = [event.reason for event in await cycle.events("batches") if isinstance(event, GenerationVoided)]
    assert [reason.partition(" of the ")[2] for reason in reasons] == [
        "generator: unknown task",
        "curator: not a batch",
    ]


async def test_a_request_acked_without_a_trace_is_lost(tmp_path: Path) -> None:
    cycle = Cycle(tmp_path, in_flight_requests_max=3)
    await cycle.import_base()
    await cycle.freeze_benchmark()
    await cycle.publish_documents(10)
    await cycle.load(first_entry())
    runtime = cycle.runtime()
    parts = await cycle.parts(runtime)
    async with running(runtime, parts):
        await eventually(lambda: len(parts.deps.state.requests) == 3)
        assert (await account(parts.deps)).lost == 0  # no generator has begun
        deliveries = cycle.bus.consume(f"generation.{DOMAIN}", durable="generator", max_ack_pending=3)
        made_one, forgotten = await anext(deliveries), await anext(deliveries)
        request = decode(made_one.data, made_one.headers)
        assert isinstance(request, GenerationRequested)
        await cycle.bus.publish(batch_of(request))
        await made_one.ack()
        await eventually(lambda: parts.deps.state.batches)
        assert (await account(parts.deps)).lost == 0
        await forgotten.ack()
        assert (await account(parts.deps)).lost == 1


@pytest.mark.parametrize("unknown", ["other_domain"])
def test_events_of_other_domains_are_ignored(unknown: str) -> None:
    state = ready(1)
    state.apply(accepted(digest_of("y")).model_copy(update={"domain": unknown}))
    assert len(state.documents) == 1
