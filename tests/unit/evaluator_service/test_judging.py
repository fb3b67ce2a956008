"""A judge's pairs become items of coherence, in either half, only while the judge passes its probes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from jupiter import manifests
from jupiter.blobs.memory import MemoryBlobs
from jupiter.bus.memory import MemoryBus
from jupiter.compute import ComputeLease
from jupiter.evaluator.deps import Deps
from jupiter.evaluator.handlers import confirm_evaluation, evaluate_checkpoint
from jupiter.evaluator.judge import Judge
from jupiter.events import ConfirmationCompleted, EvaluationCompleted, Event
from jupiter.reports import Confirmation, EvaluationReport
from tests.unit.evaluator_service.stage import (
    FakeExaminer,
    deps_of,
    frozen_benchmark,
    open_half,
    promote,
    runtime,
    store_checkpoint,
)
from tests.unit.judge.court import judge_at
from tests.unit.judge.endpoint import Asked, Character, Reply, character, endpoint, honest, length_lover


@pytest.fixture
def blobs() -> MemoryBlobs:
    blobs = MemoryBlobs()
    frozen_benchmark(blobs)
    promote(blobs, "base", version=1)
    return blobs


@pytest.fixture
def changeable() -> list[Character]:
    """The judge's character; a test may change it between two uses."""
    return [character(honest)]


@pytest.fixture
def judge(changeable: list[Character]) -> Iterator[Judge]:
    def now(asked: Asked) -> Reply:
        return changeable[0](asked)

    with endpoint(now) as served:
        yield judge_at(served.url)


@pytest.fixture
def deps(tmp_path: Path, blobs: MemoryBlobs, judge: Judge) -> Deps:
    return deps_of(runtime(tmp_path, bus=MemoryBus(), blobs=blobs), FakeExaminer(), judge=judge)


async def report_of(deps: Deps, blobs: MemoryBlobs) -> tuple[EvaluationCompleted, EvaluationReport]:
    (event,) = await evaluate_checkpoint(store_checkpoint(blobs), deps)
    assert isinstance(event, EvaluationCompleted)
    return event, EvaluationReport.model_validate_json(_file(blobs, event, "report.json"))


async def confirmation_of(event: EvaluationCompleted, deps: Deps, blobs: MemoryBlobs) -> Confirmation:
    (done,) = await confirm_evaluation(open_half(blobs, event), deps)
    assert isinstance(done, ConfirmationCompleted)
    return Confirmation.model_validate_json(_file(blobs, done, "confirmation.json"))


def _file(blobs: MemoryBlobs, event: Event, name: str) -> bytes:
    assert isinstance(event, EvaluationCompleted | ConfirmationCompleted)
    manifest = manifests.read(blobs, event.manifest_key, sha256=event.manifest_sha256).manifest
    return manifests.download_bytes(blobs, manifest.file(name))


async def test_an_honest_judges_pairs_are_items_of_coherence_in_either_half(deps: Deps, blobs: MemoryBlobs) -> None:
    event, report = await report_of(deps, blobs)
    assert report.judge is not None
    assert report.judge.usable, report.judge.reason
    health = {item.item_id: item for item in report.items if item.kind == "generation_health"}
    judged = [item for item in report.items if item.kind == "judged"]
    assert {item.item_id for item in judged} == {f"judged-{item_id}" for item_id in health}
    assert {(item.dimension, item.half) for item in judged} == {("coherence", "development")}
    for item in judged:
        source = health[item.item_id.removeprefix("judged-")]
        assert item.cluster == source.cluster
        assert item.candidate == 0.5 + (source.candidate - source.generator) / 2
        assert item.candidate + item.generator == 1
    assert event.items == len(report.items) == 12 + len(judged)
    confirmation = await confirmation_of(event, deps, blobs)
    assert confirmation.judge is not None
    assert confirmation.judge.usable
    sealed = [item for item in confirmation.items if item.kind == "judged"]
    assert sealed
    assert {item.half for item in sealed} == {"confirmation"}
    assert not {item.item_id for item in sealed} & {item.item_id for item in judged}


async def test_a_judge_that_fails_a_probe_adds_nothing_and_the_report_says_why(
    deps: Deps, blobs: MemoryBlobs, changeable: list[Character]
) -> None:
    changeable[0] = character(length_lover)
    event, report = await report_of(deps, blobs)
    assert report.judge is not None
    assert not report.judge.usable
    assert "failed the probe" in report.judge.reason
    assert event.items == 12
    assert "judged" not in {item.kind for item in report.items}


async def test_the_probes_are_run_again_before_the_sealed_half_is_judged(
    deps: Deps, blobs: MemoryBlobs, changeable: list[Character]
) -> None:
    event, report = await report_of(deps, blobs)
    assert report.judge is not None
    assert report.judge.usable
    changeable[0] = character(length_lover)
    confirmation = await confirmation_of(event, deps, blobs)
    assert confirmation.judge is not None
    assert not confirmation.judge.usable
    assert "judged" not in {item.kind for item in confirmation.items}


async def test_others_compute_while_an_endpoint_thinks(
    tmp_path: Path, blobs: MemoryBlobs, deps: Deps, changeable: list[Character]
) -> None:
    lease, taken = ComputeLease.of(deps.runtime.config), threading.Event()

    def thinks(asked: Asked) -> Reply:
        with lease.turn_in_thread("training"):
            taken.set()
        return character(honest)(asked)

    changeable[0] = thinks
    _, report = await report_of(deps, blobs)
    assert taken.is_set()
    assert report.judge is not None
    assert report.judge.usable
