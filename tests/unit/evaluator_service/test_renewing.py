"""Another benchmark is frozen from documents that were not sealed before, and from none that shards hold."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import pytest

from jupiter import keys, manifests
from jupiter.blobs.memory import MemoryBlobs
from jupiter.bus.memory import MemoryBus
from jupiter.contamination import find_count
from jupiter.errors import Rejected
from jupiter.evaluator.benchmark import Benchmark
from jupiter.evaluator.benchmarks import FrozenBenchmark, find_all, find_frozen, freeze
from jupiter.evaluator.deps import Deps
from jupiter.evaluator.general import forbidden_texts
from jupiter.evaluator.handlers import confirm_evaluation, evaluate_checkpoint
from jupiter.evaluator.items import Corpus
from jupiter.evaluator.items.item import half_of
from jupiter.evaluator.renewing import renew_benchmark
from jupiter.events import (
    BenchmarkFrozen,
    BenchmarkRenewalRefused,
    BenchmarkRenewalRequested,
    CheckpointSaved,
    ConfirmationCompleted,
    DocumentAccepted,
    DocumentForgotten,
    EvaluationCompleted,
)
from jupiter.records import Sample, digest_of
from jupiter.sample_files import write_parquet
from jupiter.service import running
from tests.unit.evaluator_service.stage import (
    DOMAIN,
    FakeExaminer,
    deps_of,
    make_benchmark,
    open_half,
    parts_of,
    promote,
    publish_document,
    published,
    runtime,
    store_checkpoint,
    until,
)

SAMPLES = 24
NUMBERS = range(30)
"""Of the documents that the first benchmark is made from."""
LATER = range(100, 148)
"""Of those that come afterwards, in groups of their own."""


def by_group(corpus: Corpus, *, domain: str, samples: int, seed: int, excluded: Collection[str] = ()) -> Benchmark:
    """Make one item per held-out document, named by its text and in the half of its group; one in three develops."""
    whole = make_benchmark(corpus, domain=domain, samples=len(corpus.held_out), seed=seed)
    named = [
        item.model_copy(update={"item_id": item_id(item.texts[0]), "half": half_of(item.cluster)})
        for item in whole.items
    ]
    kept = [item for item in named if item.item_id not in excluded]
    developing = [item for item in kept if item.half == "development"][: samples // 3]
    sealed = [item for item in kept if item.half == "confirmation"][: samples - len(developing)]
    return whole.model_copy(update={"items": (*developing, *sealed)})


def text_of(number: int) -> str:
    return f"Document {number} says something about subject {number}."


def item_id(text: str) -> str:
    """`item-` and the number in the text, so that the fake examiner can score it."""
    return f"item-{int(text.split()[1]):03d}"


@pytest.fixture
def deps(tmp_path: Path, bus: MemoryBus, blobs: MemoryBlobs) -> Deps:
    return deps_of(runtime(tmp_path, bus=bus, blobs=blobs), FakeExaminer(), items=by_group)


@pytest.fixture
async def first(bus: MemoryBus, blobs: MemoryBlobs, deps: Deps) -> FrozenBenchmark:
    """The first benchmark, from the first documents; and generator version 1."""
    for number in NUMBERS:
        await publish_document(bus, blobs, number, split="held_out")
    promote(blobs, "base", version=1)
    corpus = await deps.builder.corpus(await accepted(bus))
    made = deps.builder.build(corpus, samples=SAMPLES)
    assert isinstance(made, Benchmark)
    return freeze(blobs, made)


async def accepted(bus: MemoryBus) -> list[DocumentAccepted]:
    return [event for event in await published(bus, "corpus") if isinstance(event, DocumentAccepted)]


async def publish_later(bus: MemoryBus, blobs: MemoryBlobs, numbers: Iterable[int] = LATER) -> None:
    for number in numbers:
        await publish_document(bus, blobs, number, split="held_out", groups="later")


def request(**changes: Any) -> BenchmarkRenewalRequested:
    fields = {"generation": 2, "documents": 1, "samples": SAMPLES, "actor": "a person", "reason": "used up"}
    return BenchmarkRenewalRequested.model_validate({"domain": DOMAIN, **fields, **changes})


async def renewed(deps: Deps, **changes: Any) -> FrozenBenchmark:
    (event,) = await renew_benchmark(request(**changes), deps)
    assert isinstance(event, BenchmarkFrozen)
    frozen = find_frozen(deps.runtime.blobs, DOMAIN)
    assert frozen is not None
    assert frozen.event == event
    return frozen


async def refused(deps: Deps, **changes: Any) -> str:
    (event,) = await renew_benchmark(request(**changes), deps)
    assert isinstance(event, BenchmarkRenewalRefused)
    assert event.event_id != request(**changes).event_id
    return event.reason


def sample(text: str, *, origin: str = "synthetic", instruction: str | None = None) -> Sample:
    return Sample.model_validate(
        {
            "sample_id": digest_of(text, origin),
            "origin": origin,
            "instruction": instruction,
            "response": text,
            "document_id": digest_of("document"),
            "task": "explanation",
        }
    )


def store_shard(blobs: MemoryBlobs, name: str, *samples: Sample, counted: str | None = None) -> str:
    """Commit a shard as the curator does, found clean of the benchmark `counted`; None: it was not counted."""
    shard_id = digest_of(name)
    prefix = keys.shard_prefix(DOMAIN, shard_id)
    file = manifests.upload_bytes(blobs, prefix=prefix, name="samples.parquet", data=write_parquet(samples))
    found: dict[str, Any] = {"benchmark": counted, "synthetic": 0, "real": 0, "items": {}}
    manifests.commit(
        blobs,
        prefix=prefix,
        kind="shard",
        domain=DOMAIN,
        work_id=shard_id,
        files=(file,),
        details={} if counted is None else {"contamination": found},
    )
    return shard_id


def checkpoint_of(blobs: MemoryBlobs, *shard_ids: str, step: int = 10) -> CheckpointSaved:
    """Store a checkpoint whose manifest says what it was trained on."""
    saved = store_checkpoint(blobs, step=step)
    manifest = manifests.read(blobs, saved.manifest_key).manifest
    blobs.delete(saved.manifest_key)
    committed = manifests.commit(
        blobs,
        prefix=keys.checkpoint_prefix(DOMAIN, "run1", step),
        kind="checkpoint",
        domain=DOMAIN,
        work_id=manifest.work_id,
        files=manifest.files,
        details={"shards": list(shard_ids)},
    )
    return saved.model_copy(update={"manifest_sha256": committed.sha256})


async def evaluated(deps: Deps, saved: CheckpointSaved) -> EvaluationCompleted:
    (event,) = await evaluate_checkpoint(saved, deps)
    assert isinstance(event, EvaluationCompleted)
    return event


async def test_nothing_that_was_sealed_is_sealed_again(
    deps: Deps, bus: MemoryBus, blobs: MemoryBlobs, first: FrozenBenchmark
) -> None:
    await publish_later(bus, blobs)
    second = await renewed(deps)
    assert (second.generation, second.event.items) == (2, SAMPLES)
    assert [one.digest for one in find_all(blobs, DOMAIN)] == [first.digest, second.digest]
    used = {item.cluster for item in first.benchmark.half("confirmation")}
    assert not used & {item.cluster for item in second.benchmark.items}
    assert all(item.cluster.startswith("later") for item in second.benchmark.half("confirmation"))
    # What develops may do so again.
    assert {item.cluster for item in second.benchmark.half("development")} & {
        item.cluster for item in first.benchmark.half("development")
    }
    await publish_document(bus, blobs, 200, split="held_out", groups="group")
    assert "held-out documents give" in await refused(deps, generation=3)


async def test_without_new_documents_it_is_refused_until_there_are_some(
    deps: Deps, bus: MemoryBus, blobs: MemoryBlobs, first: FrozenBenchmark
) -> None:
    assert await refused(deps) == (
        "13 held-out documents give 8 of 24 items; publish more documents (split: held_out), or lower "
        "self_improvement.benchmark_samples"
    )
    assert find_all(blobs, DOMAIN) == (first,)
    await publish_later(bus, blobs)
    assert (await renewed(deps, documents=len(LATER))).generation == 2


async def test_what_was_recalled_is_no_material(
    deps: Deps, bus: MemoryBus, blobs: MemoryBlobs, first: FrozenBenchmark
) -> None:
    await publish_later(bus, blobs)
    for event in (await accepted(bus))[len(NUMBERS) :][:8]:
        await bus.publish(
            DocumentForgotten(domain=DOMAIN, document_id=event.document_id, actor="test", reason="recalled")
        )
    numbers = {int(item.item_id.removeprefix("item-")) for item in (await renewed(deps)).benchmark.items}
    assert not numbers & set(LATER[:8])


async def test_items_that_shards_hold_are_left_out(
    deps: Deps, bus: MemoryBus, blobs: MemoryBlobs, first: FrozenBenchmark
) -> None:
    await publish_later(bus, blobs)
    draft = {item.item_id for item in (await renewed(deps)).benchmark.items}
    blobs.delete(keys.benchmark_pointer_key(DOMAIN, 2))
    leaked = [number for number in LATER if item_id(text_of(number)) in draft][:3]
    for number in leaked[:2]:
        store_shard(blobs, f"shard {number}", sample(text_of(number)), sample("Nothing."), counted=first.digest)
    # Only the second draft has what comes in the place of those.
    store_shard(
        blobs, "real", *(sample(text_of(number), origin="real") for number in LATER if number not in leaked[2:])
    )
    assert "left out, for earlier shards hold them" in await refused(deps)
    blobs.delete(keys.manifest_key(keys.shard_prefix(DOMAIN, digest_of("real"))))
    clean = await renewed(deps)
    assert len(clean.benchmark.items) == SAMPLES
    assert not {item_id(text_of(number)) for number in leaked[:2]} & {item.item_id for item in clean.benchmark.items}


async def test_texts_of_the_general_suite_in_shards_cannot_be_left_out(
    deps: Deps, bus: MemoryBus, blobs: MemoryBlobs, first: FrozenBenchmark
) -> None:
    await publish_later(bus, blobs)
    general = next(text for texts in forbidden_texts() for text in texts if len(text.split()) > 13)
    store_shard(blobs, "general", sample(general))
    assert "earlier shards hold 1 texts of the general suite" in await refused(deps)
    assert len(find_all(blobs, DOMAIN)) == 1


async def test_a_shard_that_comes_while_the_others_are_searched_is_searched_too(
    deps: Deps, blobs: MemoryBlobs, first: FrozenBenchmark
) -> None:
    store_shard(blobs, "one", sample("Nothing."))

    def progress(done: int, total: int) -> None:
        if total == 1:
            store_shard(blobs, "two", sample(first.benchmark.items[0].texts[0]))

    found = deps.counting.search(first.benchmark, progress)
    assert found.keys() == {digest_of("one"), digest_of("two")}
    late = found[digest_of("two")]
    assert late is not None
    assert list(late.items) == [first.benchmark.items[0].item_id]


async def test_a_request_that_comes_again_changes_nothing(
    tmp_path: Path, deps: Deps, bus: MemoryBus, blobs: MemoryBlobs, first: FrozenBenchmark
) -> None:
    await publish_later(bus, blobs)
    other = deps_of(runtime(tmp_path / "b", bus=bus, blobs=blobs), FakeExaminer(), items=by_group)
    events = await asyncio.gather(renew_benchmark(request(), deps), renew_benchmark(request(), other))
    assert events[0] == events[1] == await renew_benchmark(request(documents=99), deps)
    assert len(find_all(blobs, DOMAIN)) == 2
    assert await renew_benchmark(request(generation=2), other) == [find_all(blobs, DOMAIN)[1].event]


async def test_no_generation_is_passed_over(deps: Deps, first: FrozenBenchmark) -> None:
    with pytest.raises(Rejected, match="generation 3 was asked for, and there are 1 so far"):
        await renew_benchmark(request(generation=3), deps)


async def test_the_running_service_uses_the_new_one_and_finishes_what_was_opened_on_the_old(
    deps: Deps, bus: MemoryBus, blobs: MemoryBlobs, first: FrozenBenchmark
) -> None:
    before = await evaluated(deps, store_checkpoint(blobs))
    assert before.benchmark_digest == first.digest
    opened = open_half(blobs, before)
    await publish_later(bus, blobs)
    async with running(deps.runtime, parts_of(deps)):
        await bus.publish(request())

        async def frozen() -> bool:
            return any(isinstance(event, BenchmarkFrozen) for event in await published(bus, "benchmarks"))

        async def answers() -> list[Any]:
            return await published(bus, "evaluations")

        await until(frozen)
        await bus.publish(opened)
        await bus.publish(store_checkpoint(blobs, step=20))

        async def both() -> bool:
            return len(await answers()) == 2

        await until(both)
    confirmed = next(event for event in await answers() if isinstance(event, ConfirmationCompleted))
    scored = next(event for event in await answers() if isinstance(event, EvaluationCompleted))
    assert confirmed.evaluation_id == before.evaluation_id
    assert confirmed.items == len(first.benchmark.half("confirmation"))
    second = find_frozen(blobs, DOMAIN)
    assert second is not None
    assert (second.generation, scored.benchmark_digest) == (2, second.digest)


async def test_an_opening_of_a_benchmark_that_never_was_opens_nothing(
    deps: Deps, blobs: MemoryBlobs, first: FrozenBenchmark
) -> None:
    before = await evaluated(deps, store_checkpoint(blobs))
    opened = open_half(blobs, before.model_copy(update={"benchmark_digest": "5" * 64}))
    with pytest.raises(Rejected, match="which was never frozen"):
        await confirm_evaluation(opened, deps)


async def test_what_was_committed_on_the_old_benchmark_is_announced_and_not_compared_again(
    deps: Deps, bus: MemoryBus, blobs: MemoryBlobs, first: FrozenBenchmark
) -> None:
    saved = store_checkpoint(blobs)
    before = await evaluated(deps, saved)
    await publish_later(bus, blobs)
    await renewed(deps)
    assert await evaluate_checkpoint(saved, deps) == [before]


async def test_shards_are_counted_against_the_benchmark_before_a_checkpoint_is_evaluated(
    deps: Deps, bus: MemoryBus, blobs: MemoryBlobs, first: FrozenBenchmark, caplog: pytest.LogCaptureFixture
) -> None:
    await publish_later(bus, blobs)
    second = await renewed(deps)
    sealed = second.benchmark.half("confirmation")[0]
    old = store_shard(blobs, "old", sample("Nothing of it."))
    clean = store_shard(blobs, "clean", sample("Nothing at all."), counted=first.digest)
    dirty = store_shard(
        blobs,
        "dirty",
        sample(sealed.texts[0]),
        sample("Nothing.", origin="real"),
        sample(sealed.texts[0], origin="real"),
        counted=first.digest,
    )
    made_since = store_shard(blobs, "since", sample("Nothing else."), counted=second.digest)
    gone = store_shard(blobs, "gone", sample("Nothing."))
    (texts,) = [info.key for info in blobs.list(keys.shard_prefix(DOMAIN, gone)) if info.key.endswith("parquet")]
    blobs.delete(texts)
    await evaluated(deps, checkpoint_of(blobs, old, clean, dirty, made_since, gone))

    def counts(shard_id: str) -> tuple[int, int, dict[str, str]] | None:
        found = find_count(blobs, DOMAIN, shard_id, benchmark_digest=second.digest)
        return None if found is None else (found.synthetic, found.real, dict(found.items))

    assert counts(old) == counts(clean) == counts(made_since) == (0, 0, {})
    assert counts(dirty) == (1, 1, {sealed.item_id: "confirmation"})
    assert counts(gone) is None
    assert f"shard {gone} cannot be counted" in caplog.text
    kept = [info.key for info in blobs.list(f"{keys.benchmark_prefix(DOMAIN, second.digest)}/counts/")]
    assert kept == sorted(keys.count_key(DOMAIN, second.digest, one) for one in (old, clean, dirty))
    # Against the first it was the curator that counted.
    assert find_count(blobs, DOMAIN, clean, benchmark_digest=first.digest) is not None
