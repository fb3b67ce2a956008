"""The sealed half is opened for one evaluation, once it was spent, with its prompts; and nothing is known before."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from jupiter import keys, manifests
from jupiter.blobs.memory import MemoryBlobs
from jupiter.bus.memory import MemoryBus
from jupiter.errors import Rejected
from jupiter.evaluator.benchmarks import FrozenBenchmark
from jupiter.evaluator.deps import Deps
from jupiter.evaluator.examination import Unscored
from jupiter.evaluator.handlers import confirm_evaluation, evaluate_checkpoint
from jupiter.evaluator.items import PromptSetting
from jupiter.events import ConfirmationCompleted, ConfirmationRequested, EvaluationCompleted
from jupiter.ledger import read_ledger
from jupiter.modeling import UnfitModel
from jupiter.records import canonical_json, digest_of
from jupiter.reports import Confirmation, EvaluationReport
from jupiter.sample_files import read_json_lines
from jupiter.service import running
from jupiter.statistics import summarise
from tests.unit.evaluator_service.stage import (
    DOMAIN,
    FakeExaminer,
    deps_of,
    frozen_benchmark,
    open_half,
    parts_of,
    promote,
    published,
    runtime,
    statuses,
    store_checkpoint,
    until,
)


@pytest.fixture
def frozen(blobs: MemoryBlobs) -> FrozenBenchmark:
    """A benchmark, and generator version 1."""
    frozen = frozen_benchmark(blobs)
    promote(blobs, "base", version=1)
    return frozen


@pytest.fixture
def deps(tmp_path: Path, bus: MemoryBus, blobs: MemoryBlobs, frozen: FrozenBenchmark) -> Deps:
    return deps_of(runtime(tmp_path, bus=bus, blobs=blobs), FakeExaminer())


def examiner_of(deps: Deps) -> FakeExaminer:
    assert isinstance(deps.examiner, FakeExaminer)
    return deps.examiner


async def evaluated(deps: Deps, name: str = "candidate", *, step: int = 10) -> EvaluationCompleted:
    (event,) = await evaluate_checkpoint(store_checkpoint(_memory(deps), name, step=step), deps)
    assert isinstance(event, EvaluationCompleted)
    return event


def _memory(deps: Deps) -> MemoryBlobs:
    assert isinstance(deps.runtime.blobs, MemoryBlobs)
    return deps.runtime.blobs


async def confirmed(request: ConfirmationRequested, deps: Deps) -> ConfirmationCompleted:
    (event,) = await confirm_evaluation(request, deps)
    assert isinstance(event, ConfirmationCompleted)
    return event


def file_of(blobs: MemoryBlobs, event: ConfirmationCompleted | EvaluationCompleted, name: str) -> bytes:
    manifest = manifests.read(blobs, event.manifest_key, sha256=event.manifest_sha256).manifest
    assert manifest.kind == "evaluation"
    return manifests.download_bytes(blobs, manifest.file(name))


async def test_both_models_are_scored_on_the_sealed_half_with_the_prompts_of_the_report(
    deps: Deps, blobs: MemoryBlobs, frozen: FrozenBenchmark
) -> None:
    event, examiner = await evaluated(deps), examiner_of(deps)
    report = EvaluationReport.model_validate_json(file_of(blobs, event, "report.json"))
    assert report.candidate_prompts != report.generator_prompts
    # What would suit the models now is not asked: the choice was made before.
    examiner.prompts = {"candidate": 0, "base": 1}
    request = open_half(blobs, event)
    done = await confirmed(request, deps)
    assert examiner.examined == ["candidate", "base"] * 2
    for paper, choices in zip(examiner.papers[2:], (report.candidate_prompts, report.generator_prompts), strict=True):
        assert paper.half == "confirmation"
        assert not paper.general
        assert paper.prompts == {kind: PromptSetting(choice.template, choice.shots) for kind, choice in choices.items()}
    found = Confirmation.model_validate_json(file_of(blobs, done, "confirmation.json"))
    assert {item.item_id for item in found.items} == {item.item_id for item in frozen.benchmark.half("confirmation")}
    assert (found.evaluation_id, found.opening, found.ledger_sequence) == (event.evaluation_id, 1, 2)
    assert found.benchmark_digest == frozen.digest
    assert found.checkpoint_manifest_sha256 == report.checkpoint_manifest_sha256
    assert found.generator_manifest_sha256 == report.generator_manifest_sha256
    summary = summarise(found.items, seed=report.seed)
    assert (found.candidate, found.generator, found.difference) == (
        summary.candidate,
        summary.generator,
        summary.difference,
    )
    assert (found.ci_low, found.ci_high) == (summary.ci_low, summary.ci_high)
    assert (done.opening, done.items, done.difference) == (1, 12, found.difference)
    assert done.manifest_key == keys.manifest_key(keys.sealed_prefix(DOMAIN, event.evaluation_id))
    lines = [json.loads(line) for line in read_json_lines(file_of(blobs, done, "items.jsonl.zst"))]
    assert {line["half"] for line in lines} == {"confirmation"}
    assert all({"answer", "score"} <= line["candidate"].keys() for line in lines)


async def test_nothing_of_the_sealed_half_is_known_before_it_is_opened(
    deps: Deps, bus: MemoryBus, blobs: MemoryBlobs, frozen: FrozenBenchmark, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    event = await evaluated(deps)
    sealed = {item.item_id for item in frozen.benchmark.half("confirmation")}
    assert {paper.half for paper in examiner_of(deps).papers} == {"development"}
    report = file_of(blobs, event, "report.json").decode()
    lines = "\n".join(read_json_lines(file_of(blobs, event, "items.jsonl.zst")))
    said = "\n".join(
        [
            *(status.model_dump_json() for status in await statuses(bus)),
            *(found.model_dump_json() for found in await published(bus, "evaluations")),
            *(record.getMessage() for record in caplog.records),
        ]
    )
    for text in (report, lines, said):
        assert "confirmation" not in text.replace('"confirmation":null', "")
        assert not [item_id for item_id in sealed if item_id in text]
    stored = [info.key for info in blobs.list("evaluations/")]
    assert len(stored) == 3  # report, items, manifest
    assert not [key for key in stored if "/sealed/" in key]


async def test_redelivery_announces_again_and_computes_nothing(
    tmp_path: Path, bus: MemoryBus, blobs: MemoryBlobs, deps: Deps
) -> None:
    request = open_half(blobs, await evaluated(deps))
    first = await confirmed(request, deps)
    # Another evaluator takes over after the first died between commit and announcement.
    other = deps_of(runtime(tmp_path, bus=bus, blobs=blobs), FakeExaminer())
    assert await confirmed(request, other) == first
    assert examiner_of(other).examined == []


async def test_two_evaluators_at_once_commit_one_confirmation(
    tmp_path: Path, bus: MemoryBus, blobs: MemoryBlobs, deps: Deps
) -> None:
    request = open_half(blobs, await evaluated(deps))
    other = deps_of(runtime(tmp_path / "b", bus=bus, blobs=blobs), FakeExaminer())
    first, second = await asyncio.gather(confirmed(request, deps), confirmed(request, other))
    assert first == second


async def test_a_flip_after_the_report_changes_nothing_about_whom_it_is_confirmed_against(
    deps: Deps, blobs: MemoryBlobs
) -> None:
    event = await evaluated(deps)
    request = open_half(blobs, event)
    promote(blobs, "promoted", version=2, previous=read_ledger(blobs, DOMAIN)[-1])
    await confirmed(request, deps)
    assert examiner_of(deps).examined == ["candidate", "base"] * 2


async def test_what_was_not_spent_is_not_opened(deps: Deps, blobs: MemoryBlobs) -> None:
    event = await evaluated(deps)
    other = await evaluated(deps, "base", step=20)
    request = open_half(blobs, event)
    for changes, reason in (
        ({"ledger_sequence": 1}, "ledger entry 1 is no opening"),
        ({"ledger_sequence": 9}, "ledger entry 9 is no opening"),
        ({"opening": 2}, "number of that opening is 1, not 2"),
        ({"evaluation_id": other.evaluation_id}, "evaluation of that ledger entry"),
    ):
        with pytest.raises(Rejected, match=reason):
            await confirm_evaluation(request.model_copy(update=changes), deps)
    assert _nothing_opened(deps)


async def test_the_report_of_another_evaluation_opens_nothing(deps: Deps, blobs: MemoryBlobs) -> None:
    event, other = await evaluated(deps), await evaluated(deps, "base", step=20)
    swapped = {
        "report_manifest_key": other.manifest_key,
        "report_manifest_sha256": other.manifest_sha256,
    }
    request = open_half(blobs, event, **swapped)
    with pytest.raises(Rejected, match="the report's checkpoint"):
        await confirm_evaluation(request, deps)
    with pytest.raises(Rejected, match="the report's evaluation"):
        await confirm_evaluation(request.model_copy(update={"checkpoint_id": other.checkpoint_id}), deps)
    assert _nothing_opened(deps)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"checkpoint_manifest_sha256": "5" * 64}, "evaluation of the models that the report names"),
        ({"generator_manifest_sha256": "5" * 64}, "report's generator manifest"),
        ({"generator_version": 7}, "generator version 7 is not in the ledger"),
        ({"benchmark_digest": "5" * 64}, "report's benchmark"),
        ({"domain": "domain_b"}, "report's domain"),
        ({"schema_version": 2}, "schema_version"),
        ({"candidate_prompts": {}}, r"no known prompt of kind entry_choice for the candidate: None"),
        (
            {"generator_prompts": {"entry_choice": {"template": 5, "shots": 0}}},
            "no known prompt of kind entry_choice for the generator",
        ),
    ],
)
async def test_a_report_that_does_not_hold_together_opens_nothing(
    deps: Deps, blobs: MemoryBlobs, changes: Mapping[str, Any], reason: str
) -> None:
    event = await evaluated(deps)
    report = json.loads(file_of(blobs, event, "report.json")) | dict(changes)
    forged = _commit_report(blobs, report)
    request = open_half(blobs, event, report_manifest_key=forged.key, report_manifest_sha256=forged.sha256)
    with pytest.raises(Rejected, match=reason):
        await confirm_evaluation(request, deps)
    assert _nothing_opened(deps)


async def test_a_report_that_was_changed_or_is_gone_opens_nothing(deps: Deps, blobs: MemoryBlobs) -> None:
    event = await evaluated(deps)
    request = open_half(blobs, event)
    with pytest.raises(Rejected, match=r"sealed half stays closed .* its event named"):
        await confirm_evaluation(request.model_copy(update={"report_manifest_sha256": "5" * 64}), deps)
    (key,) = [info.key for info in blobs.list("evaluations/") if info.key.endswith("report.json")]
    blobs.put(key, blobs.get(key).replace(b'"step":10', b'"step":11'))
    with pytest.raises(Rejected, match="its manifest named"):
        await confirm_evaluation(request, deps)
    blobs.delete(event.manifest_key)
    with pytest.raises(Rejected, match="sealed half stays closed"):
        await confirm_evaluation(request, deps)
    assert _nothing_opened(deps)


def _commit_report(blobs: MemoryBlobs, report: Mapping[str, Any]) -> manifests.Committed:
    prefix = keys.evaluation_prefix(DOMAIN, digest_of("forged"))
    file = manifests.upload_bytes(blobs, prefix=prefix, name="report.json", data=canonical_json(report))
    return manifests.commit(
        blobs, prefix=prefix, kind="evaluation", domain=DOMAIN, work_id=digest_of("x"), files=(file,), details={}
    )


def _nothing_opened(deps: Deps) -> bool:
    opened = [paper for paper in examiner_of(deps).papers if paper.half == "confirmation"]
    return not opened and not [info for info in _memory(deps).list("evaluations/") if "/sealed/" in info.key]


async def test_one_evaluation_is_confirmed_by_one_opening(deps: Deps, blobs: MemoryBlobs) -> None:
    event = await evaluated(deps)
    await confirmed(open_half(blobs, event), deps)
    with pytest.raises(Rejected, match=r"as opening 1; it is not opened again as opening 2"):
        await confirm_evaluation(open_half(blobs, event), deps)
    assert len(examiner_of(deps).papers) == 4


async def test_a_request_is_answered_by_the_running_service(deps: Deps, bus: MemoryBus, blobs: MemoryBlobs) -> None:
    request = open_half(blobs, await evaluated(deps))
    async with running(deps.runtime, parts_of(deps)):
        await bus.publish(request)
        await until(lambda: _some(bus))
        await until(lambda: _says(bus, "sealed half, opening 1"))
    (event,) = await published(bus, "evaluations")
    assert isinstance(event, ConfirmationCompleted)


async def _some(bus: MemoryBus) -> bool:
    return bool(await published(bus, "evaluations"))


async def _says(bus: MemoryBus, text: str) -> bool:
    return any(text in status.detail for status in await statuses(bus))


@pytest.mark.parametrize("failure", [Unscored("item x has score nan"), RuntimeError("sandbox died")])
async def test_an_item_that_errs_fails_the_confirmation_and_it_is_tried_again(
    deps: Deps, bus: MemoryBus, blobs: MemoryBlobs, failure: Exception
) -> None:
    request = open_half(blobs, await evaluated(deps))
    examiner_of(deps).failures.append(failure)
    async with running(deps.runtime, parts_of(deps)):
        await bus.publish(request)
        await until(lambda: _some(bus))
    assert examiner_of(deps).examined[2:] == ["candidate", "candidate", "base"]
    assert len(await published(bus, "evaluations")) == 1


async def test_a_candidate_that_is_gone_or_unfit_is_rejected(deps: Deps, blobs: MemoryBlobs) -> None:
    request = open_half(blobs, await evaluated(deps))
    examiner_of(deps).failures.append(UnfitModel("weights and config disagree"))
    with pytest.raises(Rejected, match="no model that can be loaded"):
        await confirm_evaluation(request, deps)
    (weights,) = [info.key for info in blobs.list("checkpoints/") if info.key.endswith("model.safetensors")]
    blobs.put(weights, blobs.get(weights)[::-1])
    with pytest.raises(Rejected, match="corrupt in the store"):
        await confirm_evaluation(request, deps)
    blobs.delete(weights)
    with pytest.raises(Rejected, match="garbage-collected"):
        await confirm_evaluation(request, deps)


async def test_a_stop_gives_the_request_back_and_the_next_evaluator_finishes_it(
    tmp_path: Path, blobs: MemoryBlobs, frozen: FrozenBenchmark
) -> None:
    bus = MemoryBus(ack_wait_s=0.2)
    before = deps_of(runtime(tmp_path, bus=bus, blobs=blobs), FakeExaminer())
    request = open_half(blobs, await evaluated(before))
    endless = FakeExaminer(hold=threading.Event())
    first = deps_of(runtime(tmp_path, bus=bus, blobs=blobs), endless)
    async with running(first.runtime, parts_of(first)):
        await bus.publish(request)
        await until(endless.started.is_set)
    assert await published(bus, "evaluations") == []
    second = deps_of(runtime(tmp_path, bus=bus, blobs=blobs), FakeExaminer())
    async with running(second.runtime, parts_of(second)):
        await until(lambda: _some(bus))


async def test_a_checkpoint_and_a_confirmation_never_load_models_side_by_side(
    deps: Deps, bus: MemoryBus, blobs: MemoryBlobs
) -> None:
    request = open_half(blobs, await evaluated(deps))
    examiner = examiner_of(deps)
    examiner.skill = {**examiner.skill, "next": 0.5}
    examiner.hold, examiner.started = threading.Event(), threading.Event()
    async with running(deps.runtime, parts_of(deps)):
        await bus.publish(request)
        await until(examiner.started.is_set)
        await bus.publish(store_checkpoint(blobs, "next", step=20))
        await asyncio.sleep(0.1)
        assert len(examiner.papers) == 3
        examiner.hold.set()

        async def both() -> bool:
            return len(await published(bus, "evaluations")) == 2

        await until(both)
    assert examiner.examined[2:] == ["candidate", "base", "next", "base"]


async def test_the_status_says_what_is_being_done(deps: Deps, bus: MemoryBus, blobs: MemoryBlobs) -> None:
    request = open_half(blobs, await evaluated(deps))
    examiner = examiner_of(deps)
    examiner.hold = threading.Event()
    confirming = asyncio.create_task(confirm_evaluation(request, deps))

    async def shown() -> bool:
        return any(status.stage == "confirming" and status.total == 24 for status in await statuses(bus))

    await until(shown)
    examiner.hold.set()
    await confirming
    await deps.runtime.close()
