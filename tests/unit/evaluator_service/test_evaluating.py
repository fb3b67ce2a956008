"""A checkpoint becomes exactly one evaluation, or a clear reason why not."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path

import pytest

from jupiter import keys, manifests
from jupiter.blobs.memory import MemoryBlobs
from jupiter.bus.memory import MemoryBus
from jupiter.errors import Rejected, Retry
from jupiter.evaluator.examination import Unscored
from jupiter.evaluator.handlers import evaluate_checkpoint
from jupiter.events import EvaluationCompleted
from jupiter.ledger import LedgerEntry
from jupiter.modeling import UnfitModel
from jupiter.reports import EvaluationReport, seed_of
from jupiter.sample_files import read_json_lines
from jupiter.service import running
from jupiter.statistics import scores
from tests.unit.evaluator_service.stage import (
    DOMAIN,
    FakeExaminer,
    deps_of,
    frozen_benchmark,
    parts_of,
    promote,
    published,
    runtime,
    statuses,
    store_checkpoint,
    until,
)


def report_of(blobs: MemoryBlobs, event: EvaluationCompleted) -> EvaluationReport:
    manifest = manifests.read(blobs, event.manifest_key, sha256=event.manifest_sha256).manifest
    return EvaluationReport.model_validate_json(manifests.download_bytes(blobs, manifest.file("report.json")))


async def test_a_checkpoint_is_compared_with_the_current_generator(
    tmp_path: Path, bus: MemoryBus, blobs: MemoryBlobs
) -> None:
    frozen, entry = frozen_benchmark(blobs), promote(blobs, "base", version=1)
    checkpoint, examiner = store_checkpoint(blobs), FakeExaminer()
    service = runtime(tmp_path, bus=bus, blobs=blobs)
    async with running(service, parts_of(deps_of(service, examiner))):
        await bus.publish(checkpoint)
        await until(lambda: _some(bus))
    (event,) = await published(bus, "evaluations")
    assert isinstance(event, EvaluationCompleted)
    report = report_of(blobs, event)
    assert examiner.examined == ["candidate", "base"]
    assert (report.checkpoint_id, report.generator_version) == (checkpoint.checkpoint_id, 1)
    assert report.generator_manifest_sha256 == entry.manifest_sha256
    assert report.benchmark_digest == frozen.digest
    assert report.seed == seed_of(report.evaluation_id, frozen.digest)
    assert {item.item_id for item in report.items} == {item.item_id for item in frozen.benchmark.half("development")}
    assert {item.half for item in report.items} == {"development"}
    assert event.items == len(report.items) == 12
    assert (report.candidate, report.generator) == scores(report.items)
    assert event.difference == report.difference == report.candidate.composite - report.generator.composite > 0
    assert event.ci_low <= event.difference <= event.ci_high
    assert report.general is not None
    assert {item.candidate for item in report.general.items} == {1.0}
    assert report.judge is None
    assert sum(kind["items"] for kind in report.figures["kinds"].values()) == 12
    assert report.figures["wins"] > report.figures["losses"] == 0


async def test_without_the_general_suite_the_report_says_nothing_of_it(
    tmp_path: Path, bus: MemoryBus, blobs: MemoryBlobs
) -> None:
    frozen_benchmark(blobs)
    promote(blobs, "base", version=1)
    service, examiner = runtime(tmp_path, bus=bus, blobs=blobs), FakeExaminer()
    section = service.config.self_improvement.model_copy(update={"general_suite": False})
    service.config = service.config.model_copy(update={"self_improvement": section})
    (event,) = await evaluate_checkpoint(store_checkpoint(blobs), deps_of(service, examiner))
    assert isinstance(event, EvaluationCompleted)
    assert report_of(blobs, event).general is None
    assert [paper.general for paper in examiner.papers] == [False, False]


async def _some(bus: MemoryBus) -> bool:
    return bool(await published(bus, "evaluations"))


@pytest.mark.parametrize("name", ["candidate", "base"])
async def test_the_report_says_by_their_weights_whether_the_two_are_one_model(
    tmp_path: Path, bus: MemoryBus, blobs: MemoryBlobs, name: str
) -> None:
    """Where the files lie in their folders does not matter, nor the training state beside the candidate's."""
    frozen_benchmark(blobs)
    promote(blobs, "base", version=1)
    checkpoint = store_checkpoint(blobs, name)
    service = runtime(tmp_path, bus=bus, blobs=blobs)
    (event,) = await evaluate_checkpoint(checkpoint, deps_of(service, FakeExaminer()))
    assert isinstance(event, EvaluationCompleted)
    report = report_of(blobs, event)
    assert report.candidate_weights_sha256 is not None
    assert (report.candidate_weights_sha256 == report.generator_weights_sha256) == (name == "base")


async def test_every_item_with_both_answers_lies_beside_the_report(
    tmp_path: Path, bus: MemoryBus, blobs: MemoryBlobs
) -> None:
    frozen_benchmark(blobs)
    promote(blobs, "base", version=1)
    deps = deps_of(runtime(tmp_path, bus=bus, blobs=blobs), FakeExaminer())
    (event,) = await evaluate_checkpoint(store_checkpoint(blobs), deps)
    assert isinstance(event, EvaluationCompleted)
    manifest = manifests.read(blobs, event.manifest_key).manifest
    lines = read_json_lines(manifests.download_bytes(blobs, manifest.file("items.jsonl.zst")))
    answers = {line["item_id"]: line for line in map(json.loads, lines)}
    for item in report_of(blobs, event).items:
        line = answers[item.item_id]
        assert (line["candidate"]["score"], line["generator"]["score"]) == (item.candidate, item.generator)
        assert line["right_answer"] == "yes"


async def test_redelivery_publishes_again_and_computes_nothing(
    tmp_path: Path, bus: MemoryBus, blobs: MemoryBlobs
) -> None:
    frozen_benchmark(blobs)
    promote(blobs, "base", version=1)
    checkpoint, examiner = store_checkpoint(blobs), FakeExaminer()
    first = await evaluate_checkpoint(checkpoint, deps_of(runtime(tmp_path, bus=bus, blobs=blobs), examiner))
    again = await evaluate_checkpoint(checkpoint, deps_of(runtime(tmp_path, bus=bus, blobs=blobs), examiner))
    assert first == again
    assert examiner.examined == ["candidate", "base"]


async def test_two_evaluators_on_one_checkpoint_commit_one_report(
    tmp_path: Path, bus: MemoryBus, blobs: MemoryBlobs
) -> None:
    frozen_benchmark(blobs)
    promote(blobs, "base", version=1)
    checkpoint = store_checkpoint(blobs)
    both = [
        evaluate_checkpoint(checkpoint, deps_of(runtime(tmp_path / name, bus=bus, blobs=blobs), FakeExaminer()))
        for name in "ab"
    ]
    first, second = await asyncio.gather(*both)
    assert first == second


async def test_a_flip_during_the_run_leaves_the_report_about_the_one_it_names(
    tmp_path: Path, bus: MemoryBus, blobs: MemoryBlobs
) -> None:
    frozen_benchmark(blobs)
    entry = promote(blobs, "base", version=1)
    examiner = FakeExaminer(skill={"candidate": 0.7, "base": 0.3, "promoted": 0.9, "other": 0.9})
    examiner.meanwhile = lambda: _flip_once(blobs, entry)
    service = runtime(tmp_path, bus=bus, blobs=blobs)
    (event,) = await evaluate_checkpoint(store_checkpoint(blobs), deps_of(service, examiner))
    assert isinstance(event, EvaluationCompleted)
    assert event.generator_version == 1
    assert examiner.examined == ["candidate", "base"]
    examiner.meanwhile = None
    (later,) = await evaluate_checkpoint(store_checkpoint(blobs, "other", step=20), deps_of(service, examiner))
    assert isinstance(later, EvaluationCompleted)
    assert later.generator_version == 2


def _flip_once(blobs: MemoryBlobs, entry: LedgerEntry) -> None:
    if blobs.stat(keys.ledger_key(DOMAIN, 2)) is None:
        promote(blobs, "promoted", version=2, previous=entry)


async def test_a_report_that_was_committed_and_not_announced_is_announced_after_a_flip(
    tmp_path: Path, bus: MemoryBus, blobs: MemoryBlobs
) -> None:
    frozen_benchmark(blobs)
    entry, checkpoint, examiner = promote(blobs, "base", version=1), store_checkpoint(blobs), FakeExaminer()
    # What dies here dies between commit and announcement: the events are lost.
    lost = await evaluate_checkpoint(checkpoint, deps_of(runtime(tmp_path, bus=bus, blobs=blobs), examiner))
    promote(blobs, "promoted", version=2, previous=entry)
    found = await evaluate_checkpoint(checkpoint, deps_of(runtime(tmp_path, bus=bus, blobs=blobs), examiner))
    assert found == lost
    assert examiner.examined == ["candidate", "base"]


async def test_without_benchmark_or_generator_it_waits(tmp_path: Path, bus: MemoryBus, blobs: MemoryBlobs) -> None:
    deps = deps_of(runtime(tmp_path, bus=bus, blobs=blobs), FakeExaminer())
    with pytest.raises(Retry, match="not frozen") as waiting:
        await evaluate_checkpoint(store_checkpoint(blobs), deps)
    assert not waiting.value.counts
    frozen_benchmark(blobs)
    with pytest.raises(Retry, match="no generator") as waiting:
        await evaluate_checkpoint(store_checkpoint(blobs), deps)
    assert not waiting.value.counts
    promote(blobs, "base", version=1)
    assert len(await evaluate_checkpoint(store_checkpoint(blobs), deps)) == 1


async def test_a_garbage_collected_checkpoint_is_rejected(tmp_path: Path, bus: MemoryBus, blobs: MemoryBlobs) -> None:
    frozen_benchmark(blobs)
    promote(blobs, "base", version=1)
    checkpoint = store_checkpoint(blobs)
    deps = deps_of(runtime(tmp_path, bus=bus, blobs=blobs), FakeExaminer())
    weights = _key_of(blobs, "checkpoints/", "model.safetensors")
    blobs.delete(weights)
    with pytest.raises(Rejected, match=r"step 10\) is no longer stored, it was garbage-collected"):
        await evaluate_checkpoint(checkpoint, deps)
    blobs.delete(checkpoint.manifest_key)
    with pytest.raises(Rejected, match="garbage-collected"):
        await evaluate_checkpoint(checkpoint, deps)
    assert not list((tmp_path / "evaluator").glob("candidate-*"))


async def test_a_corrupt_checkpoint_is_rejected(tmp_path: Path, bus: MemoryBus, blobs: MemoryBlobs) -> None:
    frozen_benchmark(blobs)
    promote(blobs, "base", version=1)
    checkpoint, examiner = store_checkpoint(blobs), FakeExaminer()
    deps = deps_of(runtime(tmp_path, bus=bus, blobs=blobs), examiner)
    weights = _key_of(blobs, "checkpoints/", "model.safetensors")
    blobs.put(weights, blobs.get(weights)[::-1])
    with pytest.raises(Rejected, match="corrupt in the store"):
        await evaluate_checkpoint(checkpoint, deps)
    blobs.put(checkpoint.manifest_key, blobs.get(checkpoint.manifest_key) + b" ")
    with pytest.raises(Rejected, match="corrupt in the store"):
        await evaluate_checkpoint(checkpoint, deps)
    assert examiner.examined == []


def _key_of(blobs: MemoryBlobs, prefix: str, ending: str) -> str:
    (key,) = [info.key for info in blobs.list(prefix) if info.key.endswith(ending)]
    return key


async def test_a_candidate_that_is_no_model_is_rejected_with_the_reason(
    tmp_path: Path, bus: MemoryBus, blobs: MemoryBlobs
) -> None:
    frozen_benchmark(blobs)
    promote(blobs, "base", version=1)
    examiner = FakeExaminer(failures=[UnfitModel("weights and config disagree")])
    with pytest.raises(Rejected, match="no model that can be loaded: weights and config disagree"):
        await evaluate_checkpoint(store_checkpoint(blobs), deps_of(runtime(tmp_path, bus=bus, blobs=blobs), examiner))


async def test_trouble_with_the_generator_is_not_blamed_on_the_checkpoint(
    tmp_path: Path, bus: MemoryBus, blobs: MemoryBlobs
) -> None:
    frozen_benchmark(blobs)
    promote(blobs, "base", version=1)
    weights = _key_of(blobs, "generators/", "model.safetensors")
    kept = blobs.get(weights)
    blobs.put(weights, kept[::-1])
    service = runtime(tmp_path, bus=bus, blobs=blobs)
    deps, checkpoint = deps_of(service, FakeExaminer()), store_checkpoint(blobs)
    with pytest.raises(Exception, match="sha256") as trouble:
        await evaluate_checkpoint(checkpoint, deps)
    assert not isinstance(trouble.value, Rejected)
    blobs.put(weights, kept)
    assert len(await evaluate_checkpoint(checkpoint, deps)) == 1


@pytest.mark.parametrize("failure", [Unscored("item x has score nan"), RuntimeError("sandbox died")])
async def test_an_item_that_errs_fails_the_evaluation_and_it_is_tried_again(
    tmp_path: Path, bus: MemoryBus, blobs: MemoryBlobs, failure: Exception
) -> None:
    frozen_benchmark(blobs)
    promote(blobs, "base", version=1)
    examiner = FakeExaminer(failures=[failure])
    service = runtime(tmp_path, bus=bus, blobs=blobs)
    async with running(service, parts_of(deps_of(service, examiner))):
        await bus.publish(store_checkpoint(blobs))
        await until(lambda: _some(bus))
    assert examiner.examined == ["candidate", "candidate", "base"]
    assert len(await published(bus, "evaluations")) == 1


async def test_a_missing_score_is_never_a_zero(tmp_path: Path, bus: MemoryBus, blobs: MemoryBlobs) -> None:
    frozen = frozen_benchmark(blobs)
    promote(blobs, "base", version=1)
    forgotten = frozen.benchmark.half("development")[0].item_id
    deps = deps_of(runtime(tmp_path, bus=bus, blobs=blobs), FakeExaminer(forget=forgotten))
    with pytest.raises(KeyError):
        await evaluate_checkpoint(store_checkpoint(blobs), deps)
    assert not list(blobs.list("evaluations/"))


async def test_a_stop_gives_the_checkpoint_back_and_the_next_evaluator_finishes_it(
    tmp_path: Path, blobs: MemoryBlobs
) -> None:
    bus = MemoryBus(ack_wait_s=0.2)
    frozen_benchmark(blobs)
    promote(blobs, "base", version=1)
    endless = FakeExaminer(hold=threading.Event())
    first = runtime(tmp_path, bus=bus, blobs=blobs)
    async with running(first, parts_of(deps_of(first, endless))):
        await bus.publish(store_checkpoint(blobs))
        await until(endless.started.is_set)
    assert await published(bus, "evaluations") == []
    second = runtime(tmp_path, bus=bus, blobs=blobs)
    async with running(second, parts_of(deps_of(second, FakeExaminer()))):
        await until(lambda: _some(bus))
    assert not list((tmp_path / "evaluator").glob("candidate-*"))


async def test_progress_is_seen(tmp_path: Path, bus: MemoryBus, blobs: MemoryBlobs) -> None:
    frozen_benchmark(blobs)
    promote(blobs, "base", version=1)
    service = runtime(tmp_path, bus=bus, blobs=blobs)
    await evaluate_checkpoint(store_checkpoint(blobs), deps_of(service, FakeExaminer()))

    async def idle() -> bool:
        return any(said.stage == "idle" and "difference +" in said.detail for said in await statuses(bus))

    await until(idle)
    await service.close()
