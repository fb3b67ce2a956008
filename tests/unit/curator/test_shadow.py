"""A candidate's batch beside the incumbent's: the same rules for both, and no trace in the data."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any, TypeVar

import pytest

from jupiter import keys, manifests
from jupiter.blobs import Blobs
from jupiter.blobs.memory import MemoryBlobs
from jupiter.bus.memory import MemoryBus
from jupiter.curator.handlers import Deps, subscriptions
from jupiter.curator.shadow import judge_shadow
from jupiter.errors import Rejected, Retry
from jupiter.events import BatchGenerated, Event, GenerationItem, ShadowGenerated, ShadowJudged, ShardCurated
from jupiter.records import digest_of, sample_id_of
from jupiter.reports import Shadow
from jupiter.sample_files import read_json_lines, write_json_lines
from jupiter.service import ServiceParts, running
from tests.unit.curator.material import DOMAIN, deps_for, document, freeze_benchmark, register_generator, sample
from tests.unit.curator.test_handlers import ANSWERS, LAST_ANSWERS, MORE_ANSWERS, curate, files_of, publish, world

EVALUATION = digest_of("evaluation")
GARBAGE = ["zq zq zq zq zq zq", "The moon is made of green cheese by 1066.", None, "I'm sorry, no."]

Answers = Sequence[str | None]
E = TypeVar("E", bound=Event)


def lines_of(request_id: str, answers: Answers) -> tuple[list[Any], list[dict[str, Any]], list[dict[str, Any]]]:
    """Return samples, unusable lines and items of a request; an answer that is None gave no sample."""
    items = [
        GenerationItem(
            document_id=document().document_id,
            chunk_index=0,
            task="question_answer",
            audience="a",
            difficulty="d",
            seed=number,
        ).model_dump(mode="json")
        for number in range(len(answers))
    ]
    samples = [
        sample(answer, sample_id=sample_id_of(request_id, number), seed=number)
        for number, answer in enumerate(answers)
        if answer is not None
    ]
    unusable = [
        {"index": number, "reason": "empty", "item": items[number], "prompt": "Sentence:", "completion": ""}
        for number, answer in enumerate(answers)
        if answer is None
    ]
    return samples, unusable, items


def store(blobs: Blobs, prefix: str, request_id: str, answers: Answers, **details: Any) -> manifests.Committed:
    samples, unusable, items = lines_of(request_id, answers)
    files = {"samples.jsonl.zst": samples, "unusable.jsonl.zst": unusable}
    return manifests.commit(
        blobs,
        prefix=prefix,
        kind="batch",
        domain=DOMAIN,
        work_id=request_id,
        files=tuple(
            manifests.upload_bytes(blobs, prefix=prefix, name=name, data=write_json_lines(lines))
            for name, lines in files.items()
        ),
        details={"request_id": request_id, "items": items, **details},
    )


def incumbents_batch(blobs: Blobs, answers: Answers = ANSWERS, *, sequence: int = 1) -> BatchGenerated:
    request_id = digest_of("request", sequence)
    prefix = keys.batch_prefix(DOMAIN, request_id)
    committed = store(blobs, prefix, request_id, answers, generator_version=1, sequence=sequence)
    return BatchGenerated(
        domain=DOMAIN,
        batch_id=request_id,
        generator_version=1,
        sequence=sequence,
        manifest_key=committed.key,
        manifest_sha256=committed.sha256,
        samples=len(answers),
        tokens=0,
        seconds=0.0,
    )


def candidates_batch(
    blobs: Blobs, batch: BatchGenerated, answers: Answers, *, evaluation_id: str = EVALUATION
) -> ShadowGenerated:
    committed = store(
        blobs,
        keys.shadow_batch_prefix(DOMAIN, evaluation_id),
        digest_of("shadow", evaluation_id, batch.batch_id),
        answers,
        generator_version=None,
        evaluation_id=evaluation_id,
        incumbent_batch_id=batch.batch_id,
    )
    return ShadowGenerated(
        domain=DOMAIN,
        evaluation_id=evaluation_id,
        batch_id=batch.batch_id,
        batch_manifest_key=batch.manifest_key,
        batch_manifest_sha256=batch.manifest_sha256,
        manifest_key=committed.key,
        manifest_sha256=committed.sha256,
    )


async def until_published(bus: MemoryBus, kind: type[E], count: int) -> list[E]:
    """Return the first `count` events of a kind once they are there."""
    found: list[E] = []
    async with asyncio.timeout(100):
        async for entry in bus.read(f"{kind.channel}.{DOMAIN}"):
            found += [entry.event] if isinstance(entry.event, kind) else []
            if len(found) == count:
                break
    return found


async def judged(event: ShadowGenerated, deps: Deps) -> tuple[ShadowJudged, Shadow]:
    (answer,) = await judge_shadow(event, deps)
    assert isinstance(answer, ShadowJudged)
    manifest = manifests.read(deps.runtime.blobs, answer.manifest_key, sha256=answer.manifest_sha256).manifest
    return answer, Shadow.model_validate(manifest.details)


async def compared(candidate: Answers, incumbent: Answers = ANSWERS) -> Shadow:
    """Curate the incumbent's batch, as it was long ago, then judge both."""
    bus, blobs = MemoryBus(), MemoryBlobs()
    deps = await world(bus, blobs)
    batch = incumbents_batch(blobs, incumbent)
    await curate(deps, batch)
    _, shadow = await judged(candidates_batch(blobs, batch, candidate), deps)
    return shadow


async def test_an_identical_candidate_has_the_incumbents_flags_and_figures() -> None:
    answers = [*ANSWERS, ANSWERS[0].upper(), None, "I'm sorry, no."]
    shadow = await compared(answers, answers)
    assert shadow.candidate.accepted == (True, True, True, True, False, False, False)
    assert shadow.candidate.dropped == {"exact_duplicate": 1, "refusal": 1, "unusable_empty": 1}
    apart = {"manifest_sha256"}
    assert shadow.candidate.model_dump(exclude=apart) == shadow.incumbent.model_dump(exclude=apart)
    assert shadow.candidate.manifest_sha256 != shadow.incumbent.manifest_sha256
    assert (shadow.candidate.items, shadow.candidate.samples) == (7, 6)
    assert shadow.clusters == (document().document_id,) * 7


async def test_a_candidate_that_writes_garbage_has_little_accepted() -> None:
    shadow = await compared(GARBAGE)
    assert shadow.incumbent.accepted == (True, True, True, True)
    assert shadow.candidate.accepted == (False, False, False, False)
    assert shadow.candidate.dropped["unusable_empty"] == 1
    assert shadow.candidate.dropped["refusal"] == 1
    assert sum(shadow.candidate.dropped.values()) == 4
    assert shadow.candidate.grounding < 0.5 < shadow.incumbent.grounding
    assert shadow.candidate.samples == 3


async def test_a_candidate_that_repeats_one_memorised_answer_is_seen_to() -> None:
    shadow = await compared([ANSWERS[0]] * 4)
    assert shadow.candidate.accepted == (True, False, False, False)
    assert shadow.candidate.duplicates == 0.75
    assert shadow.incumbent.duplicates == 0.0


async def test_a_refused_answer_that_is_repeated_is_a_duplicate_all_the_same() -> None:
    shadow = await compared(["The moon is made of green cheese, as everybody knows who has been there."] * 4)
    assert "exact_duplicate" not in shadow.candidate.dropped
    assert shadow.candidate.duplicates == 0.75


async def test_neither_side_is_favoured() -> None:
    """Exchanged, they exchange flags and figures, and what one says does not make the other's a duplicate."""
    mixed = [*ANSWERS[:2], "The moon is made of green cheese.", None]
    one, other = await compared(mixed, ANSWERS), await compared(ANSWERS, mixed)
    apart = {"manifest_sha256"}
    assert one.candidate.model_dump(exclude=apart) == other.incumbent.model_dump(exclude=apart)
    assert one.incumbent.model_dump(exclude=apart) == other.candidate.model_dump(exclude=apart)
    assert one.candidate.accepted == (True, True, False, False)


async def test_the_incumbents_flags_are_those_that_its_batch_had_when_it_was_curated() -> None:
    bus, blobs = MemoryBus(), MemoryBlobs()
    deps = await world(bus, blobs)
    batches = [incumbents_batch(blobs, answers, sequence=n) for n, answers in ((1, ANSWERS), (2, LAST_ANSWERS))]
    shards = [await curate(deps, batch) for batch in batches]
    for batch, shard, number in zip(batches, shards, (1, 2), strict=True):
        event = candidates_batch(blobs, batch, GARBAGE[: batch.samples], evaluation_id=digest_of("evaluation", number))
        answer, shadow = await judged(event, deps)
        assert answer.incumbent_accepted == shard.accepted > 0
        assert answer.items == shard.candidates
        assert shadow.incumbent.dropped == shard.dropped


async def test_what_earlier_shards_hold_is_a_duplicate_for_both() -> None:
    bus, blobs = MemoryBus(), MemoryBlobs()
    deps = await world(bus, blobs)
    await curate(deps, incumbents_batch(blobs, ANSWERS[:2], sequence=1))
    batch = incumbents_batch(blobs, [ANSWERS[2], ANSWERS[0]], sequence=2)
    await curate(deps, batch)
    _, shadow = await judged(candidates_batch(blobs, batch, [ANSWERS[1], ANSWERS[2]]), deps)
    assert shadow.incumbent.accepted == (True, False)
    assert shadow.candidate.accepted == (False, True)
    assert shadow.incumbent.dropped == shadow.candidate.dropped == {"exact_duplicate": 1}
    assert shadow.incumbent.duplicates == shadow.candidate.duplicates == 0.5


async def test_a_shadow_leaves_no_trace_in_the_data() -> None:
    """The batch that is curated after it makes the same shard, byte for byte, as if there had been no shadow."""
    following: list[dict[str, str]] = []
    for with_shadow in (True, False):
        bus, blobs = MemoryBus(), MemoryBlobs()
        deps = await world(bus, blobs)
        batch = incumbents_batch(blobs)
        await curate(deps, batch)
        if with_shadow:
            await judged(candidates_batch(blobs, batch, [*LAST_ANSWERS, *MORE_ANSWERS][:4]), deps)
        event = await curate(deps, incumbents_batch(blobs, [*LAST_ANSWERS, ANSWERS[0]], sequence=2))
        assert event.dropped == {"exact_duplicate": 1}
        following.append(files_of(blobs, event))
        assert await bus.last_sequence("shards") == 2
        shards = [info.key for info in blobs.list("shards/") if info.key.endswith("manifest.json")]
        assert len(shards) == 2
    assert following[0] == following[1]


async def test_the_lines_behind_the_figures_are_kept_for_both_sides() -> None:
    bus, blobs = MemoryBus(), MemoryBlobs()
    deps = await world(bus, blobs)
    batch = incumbents_batch(blobs)
    answer, shadow = await judged(candidates_batch(blobs, batch, [ANSWERS[0], *GARBAGE[1:]]), deps)
    assert answer.manifest_key == f"evaluations/{DOMAIN}/{EVALUATION}/shadow/judgement/manifest.json"
    manifest = manifests.read(blobs, answer.manifest_key).manifest
    for name, side in (("candidate", shadow.candidate), ("incumbent", shadow.incumbent)):
        accepted, rejected = (
            [json.loads(line) for line in read_json_lines(blobs.get(manifest.file(f"{name}_{kind}.jsonl.zst").key))]
            for kind in ("accepted", "rejected")
        )
        assert len(accepted) == sum(side.accepted)
        assert len(accepted) + len(rejected) == side.items
        assert all(line["sample"]["response"] in ANSWERS for line in accepted)
        assert sorted(line["reason"] for line in rejected) == sorted(
            reason for reason, count in side.dropped.items() for _ in range(count)
        )


async def test_the_figures_stand_beside_the_real_datas_own() -> None:
    shadow = await compared(ANSWERS)
    assert shadow.real
    for name, figure in shadow.real.items():
        assert shadow.incumbent.diversity[f"real.{name}"] == figure
        assert f"synthetic.{name}" in shadow.candidate.diversity


async def test_a_redelivered_shadow_gives_the_same_event_whatever_was_published_since() -> None:
    bus, blobs = MemoryBus(), MemoryBlobs()
    deps = await world(bus, blobs)
    batch = incumbents_batch(blobs)
    event = candidates_batch(blobs, batch, GARBAGE)
    first = await judge_shadow(event, deps)  # committed, never published: the process was killed
    await publish(deps, "A document that came after the judgement and would change what is in it.")
    await curate(deps, batch)
    restarted = deps_for(bus, blobs)
    assert await judge_shadow(event, restarted) == first
    assert restarted.knowledge is None  # nothing was read or judged again


async def test_two_curators_at_once_and_one_after_a_restart_judge_alike() -> None:
    bus, blobs = MemoryBus(), MemoryBlobs()
    deps = await world(bus, blobs)
    batch = incumbents_batch(blobs)
    await curate(deps, batch)
    event = candidates_batch(blobs, batch, [ANSWERS[1], *GARBAGE[1:]])
    one, two = await asyncio.gather(judge_shadow(event, deps), judge_shadow(event, deps_for(bus, blobs)))
    assert one == two
    _, before = await judged(event, deps)
    blobs.delete(keys.manifest_key(keys.shadow_judgement_prefix(DOMAIN, EVALUATION)))
    _, again = await judged(event, deps_for(bus, blobs))
    assert again == before


async def test_batches_that_cannot_be_compared_are_rejected() -> None:
    bus, blobs = MemoryBus(), MemoryBlobs()
    deps = await world(bus, blobs)
    batch = incumbents_batch(blobs)
    event = candidates_batch(blobs, batch, GARBAGE)
    with pytest.raises(Rejected, match="sha256"):
        await judge_shadow(event.model_copy(update={"manifest_sha256": "0" * 64}), deps)
    with pytest.raises(Rejected, match="no object"):
        await judge_shadow(event.model_copy(update={"batch_manifest_key": "batches/none/manifest.json"}), deps)
    with pytest.raises(Rejected, match="has evaluation_id"):
        await judge_shadow(event.model_copy(update={"evaluation_id": "e" * 64}), deps)
    other = incumbents_batch(blobs, ANSWERS, sequence=2)
    names = {"batch_manifest_key": other.manifest_key, "batch_manifest_sha256": other.manifest_sha256}
    with pytest.raises(Rejected, match="has request_id"):
        await judge_shadow(event.model_copy(update=names), deps)
    shorter = candidates_batch(blobs, batch, GARBAGE[:2], evaluation_id="d" * 64)
    with pytest.raises(Rejected, match="not answer the same items"):
        await judge_shadow(shorter, deps)


async def test_a_shadow_waits_for_the_benchmark_as_a_batch_does() -> None:
    blobs = MemoryBlobs()
    deps = deps_for(MemoryBus(), blobs)
    event = candidates_batch(blobs, incumbents_batch(blobs), GARBAGE)
    with pytest.raises(Retry, match="benchmark") as waiting:
        await judge_shadow(event, deps)
    assert waiting.value.counts is False
    freeze_benchmark(blobs)
    register_generator(blobs)
    _, shadow = await judged(event, deps)
    assert shadow.incumbent.dropped == {"unknown_document": 4}


async def test_shadows_and_batches_are_judged_beside_each_other() -> None:
    bus, blobs = MemoryBus(), MemoryBlobs()
    deps = await world(bus, blobs)
    batches = [incumbents_batch(blobs, answers, sequence=n) for n, answers in enumerate([ANSWERS, LAST_ANSWERS], 1)]
    shadows = [
        candidates_batch(blobs, batch, GARBAGE[: batch.samples], evaluation_id=digest_of("evaluation", number))
        for number, batch in enumerate(batches)
    ]
    async with running(deps.runtime, ServiceParts(deps=deps, subscriptions=subscriptions(deps.settings))):
        for event in (*shadows, *batches, *shadows):
            await bus.publish(event)
        shards = await until_published(bus, ShardCurated, 2)
        answers = await until_published(bus, ShadowJudged, 2)
    assert [event.accepted for event in shards] == [4, 3]
    assert [event.incumbent_accepted for event in answers] == [4, 3]
    assert await bus.dead_letters() == []
