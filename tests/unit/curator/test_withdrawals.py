"""What the curator leaves out once it is withdrawn: batches of a quarantined version, documents that were recalled."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupiter import manifests
from jupiter.blobs.memory import MemoryBlobs
from jupiter.bus.memory import MemoryBus
from jupiter.controller.projection import Projection
from jupiter.curator.deps import up_to_date
from jupiter.curator.handlers import Deps, curate_batch
from jupiter.curator.shard import SAMPLES_FILE
from jupiter.events import (
    BatchGenerated,
    DocumentForgotten,
    Event,
    GenerationItem,
    GenerationRequested,
    GenerationVoided,
    ShardCurated,
    VersionQuarantined,
)
from jupiter.records import Sample, Sampling, digest_of
from jupiter.sample_files import read_parquet
from jupiter.withdrawals import Withdrawn, read, together
from tests.unit.curator.material import DOMAIN, commit_batch, corpus, deps_for, document, sample
from tests.unit.curator.test_handlers import ANSWERS, LAST_ANSWERS, curate, details_of, manifest_of, world

LOADS = "Deserialize s, a str instance that holds a JSON document, to an object, and raise an error when it is no JSON."


def forgotten(document_id: str) -> DocumentForgotten:
    return DocumentForgotten(domain=DOMAIN, document_id=document_id, actor="test", reason="asked")


def quarantined(version: int, until_request: int) -> VersionQuarantined:
    return VersionQuarantined(
        domain=DOMAIN, ledger_sequence=version, version=version, request_sequence_max=until_request, reason="worse"
    )


def samples_of(blobs: MemoryBlobs, event: ShardCurated) -> list[Sample]:
    return list(read_parquet(manifests.download_bytes(blobs, manifest_of(blobs, event).file(SAMPLES_FILE))))


def request_of(batch: BatchGenerated) -> GenerationRequested:
    item = GenerationItem(
        document_id=document().document_id, chunk_index=0, task="explain", audience="a", difficulty="d", seed=1
    )
    return GenerationRequested(
        domain=DOMAIN,
        request_id=batch.batch_id,
        generator_version=batch.generator_version,
        sequence=batch.sequence,
        items=(item,),
        sampling=Sampling(),
    )


async def test_a_withdrawn_batch_makes_no_shard_and_is_not_lost() -> None:
    bus, blobs = MemoryBus(), MemoryBlobs()
    deps = await world(bus, blobs)
    batches = [commit_batch(blobs, [sample(ANSWERS[number])], sequence=number + 1) for number in range(3)]
    first = await curate(deps, batches[0])
    await bus.publish(quarantined(1, until_request=2))
    (voided,) = await curate_batch(batches[1], deps)
    assert isinstance(voided, GenerationVoided)
    assert "rolled back with quarantine" in voided.reason
    assert await curate_batch(batches[1], deps) == [voided], "called again, it says the same"
    assert await curate_batch(batches[0], deps) == [first], "what is a shard stays one: its log is read by position"
    later = await curate(deps, batches[2])

    state = Projection(domain=DOMAIN)
    events: list[Event] = [*map(request_of, batches), *batches, first, voided, later]
    for event in events:
        state.apply(event)
    counted = state.accounting()
    assert (counted.lost, counted.open_batches, counted.buried_batches, counted.shards) == (0, 0, 1, 2)


async def test_what_was_withdrawn_blocks_no_later_sample_and_gives_its_real_data_back() -> None:
    """The history is as if the withdrawn shard had never been, for a curator that lived through it and a new one."""
    bus, blobs = MemoryBus(), MemoryBlobs()
    deps = await world(bus, blobs)
    first = await curate(deps, commit_batch(blobs, [*map(sample, ANSWERS)], sequence=1))
    used = [one.sample_id for one in samples_of(blobs, first) if one.origin == "real"]
    async with deps.knowing:
        uses = (await up_to_date(deps)).history.real_uses
    assert used
    assert all(uses[sample_id] == 1 for sample_id in used)
    await bus.publish(quarantined(1, until_request=1))
    batch = commit_batch(blobs, [*map(sample, ANSWERS)], sequence=2)
    again = await curate(deps, batch)
    assert again.accepted == len(ANSWERS), "they are no duplicates of what is withdrawn"
    repeats = manifest_of(blobs, again).details["repeats"]
    assert repeats["first_time"] == repeats["unique"]
    fresh = deps_for(bus, blobs)
    for known in (deps, fresh):
        async with known.knowing:
            knowledge = await up_to_date(known)
            assert len(knowledge.history) == 1


async def test_a_forgotten_document_leaves_the_pool_and_its_samples_are_dropped() -> None:
    bus, blobs = MemoryBus(), MemoryBlobs()
    deps = await world(bus, blobs, documents=60)
    before = await curate(deps, commit_batch(blobs, [*map(sample, ANSWERS)], sequence=1))
    out = document().document_id
    assert manifest_of(blobs, before).details["documents"] == {out: len(ANSWERS)}
    assert manifest_of(blobs, before).details["templates"] == {"plain": len(ANSWERS)}
    await bus.publish(forgotten(out))
    after = await curate(deps, commit_batch(blobs, [*map(sample, LAST_ANSWERS)], sequence=2))
    assert (after.accepted, after.dropped) == (0, {"forgotten": len(LAST_ANSWERS)})
    async with deps.knowing:
        knowledge = await up_to_date(deps)
    assert out not in {real.sample.document_id for real in knowledge.corpus.real.values()}
    assert knowledge.corpus.passage(out, 0) is None
    assert knowledge.history.samples_of(out) == 0


async def test_forgetting_is_the_same_before_and_after_a_restart_and_twice_is_once() -> None:
    bus, blobs = MemoryBus(), MemoryBlobs()
    deps = await world(bus, blobs)
    await curate(deps, commit_batch(blobs, [*map(sample, ANSWERS)], sequence=1))
    for _ in range(2):
        await bus.publish(forgotten(document().document_id))
    assert (await read(bus, DOMAIN)).withdrawn.sequence == 1
    batch = commit_batch(blobs, [sample(LAST_ANSWERS[0])], sequence=2)
    lived, restarted = await curate(deps, batch), None
    other = MemoryBlobs()
    for info in blobs.list(""):
        if not info.key.startswith(f"shards/{DOMAIN}/{lived.shard_id}"):
            other.put(info.key, blobs.get(info.key))
    without = MemoryBus()
    async for entry in bus.read(f"corpus.{DOMAIN}", follow=False):
        await without.publish(entry.event)
    async for entry in bus.read(f"shards.{DOMAIN}", follow=False):
        if isinstance(entry.event, ShardCurated) and entry.event.shard_id != lived.shard_id:
            await without.publish(entry.event)
    await without.publish(forgotten(document().document_id))
    restarted = await curate(deps_for(without, other), batch)
    assert details_of(other, restarted) == details_of(blobs, lived)


async def test_documents_of_equal_text_do_not_fall_with_the_one_that_is_forgotten() -> None:
    """Two sources tell the same: the real sample of the first hid the other's, and comes back as the other's."""
    first = document(group="one")
    second = document(first.text + " ", document_id=digest_of("second"), group="two")
    both = corpus(first, second)
    assert {real.sample.document_id for real in both.real.values()} == {first.document_id}
    assert both.dropped["exact_duplicate_real"] > 0
    from tests.unit.curator.material import SETTINGS, forbidden, no_tokens

    again = type(both)(
        chunk_chars_max=SETTINGS.chunk_chars_max,
        near_duplicate_threshold=SETTINGS.near_duplicate_threshold,
        forbidden=forbidden(),
        count_tokens=no_tokens,
        forgotten=(first.document_id,),
    )
    again.add_training([first, second])
    assert {real.sample.document_id for real in again.real.values()} == {second.document_id}
    assert again.is_forgotten(first.document_id)


async def test_a_server_that_is_away_while_it_opens_leaves_nothing_half_read() -> None:
    bus, blobs = MemoryBus(), MemoryBlobs()
    deps: Deps = await world(bus, blobs)
    await curate(deps, commit_batch(blobs, [*map(sample, ANSWERS)], sequence=1))
    await bus.publish(quarantined(1, until_request=1))
    pointer = blobs.get(f"benchmarks/{DOMAIN}/frozen")
    blobs.delete(f"benchmarks/{DOMAIN}/frozen")
    with pytest.raises(Exception, match="benchmark"):
        await curate_batch(commit_batch(blobs, [sample(ANSWERS[0])], sequence=2), deps)
    blobs.put(f"benchmarks/{DOMAIN}/frozen", pointer)
    async with deps.knowing:
        assert len((await up_to_date(deps)).history) == 0


events = st.one_of(
    st.builds(forgotten, st.integers(0, 3).map(lambda number: digest_of("document", number))),
    st.builds(quarantined, st.integers(1, 4), until_request=st.integers(0, 9)),
)


@given(st.lists(events, max_size=12), st.data())
def test_the_set_only_grows_and_does_not_depend_on_how_it_was_read(log: list[Event], data: st.DataObject) -> None:
    whole = Withdrawn()
    for sequence, event in enumerate(log, start=1):
        grown = whole.with_event(event, sequence)
        assert set(whole.forgotten) <= set(grown.forgotten)
        whole = grown
    cut = data.draw(st.integers(0, len(log)))
    parts = [Withdrawn(), Withdrawn(sequence=cut)]
    for sequence, event in enumerate(log, start=1):
        parts[sequence > cut] = parts[sequence > cut].with_event(event, sequence)
    assert together(parts) == whole
    again = whole
    for sequence, event in enumerate(log, start=1):
        again = again.with_event(event, sequence)
    assert again.model_copy(update={"sequence": whole.sequence}) == whole, "what is told twice is told once"


@given(st.lists(events, max_size=12), st.integers(1, 5), st.integers(1, 12))
def test_a_quarantine_touches_no_other_version_and_no_later_request(
    log: list[Event], version: int, sequence: int
) -> None:
    whole = Withdrawn()
    for number, event in enumerate(log, start=1):
        whole = whole.with_event(event, number)
    reach = [one.request_sequence_max for one in log if isinstance(one, VersionQuarantined) and one.version == version]
    assert whole.has_batch(version=version, sequence=sequence) == (sequence <= max(reach, default=0))
