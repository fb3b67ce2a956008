"""A tiny real model takes the examination; an item without a usable score fails it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from jupiter.blobs.memory import MemoryBlobs
from jupiter.evaluator.benchmark import Benchmark
from jupiter.evaluator.examination import ModelExaminer, Paper, Unscored, check_complete
from jupiter.evaluator.general import general_items
from jupiter.evaluator.items import item_kinds
from jupiter.evaluator.scoring import ItemScore
from tests.tiny_model import make_tiny_model
from tests.unit.evaluator_service.stage import frozen_benchmark


@pytest.fixture
def benchmark() -> Benchmark:
    return frozen_benchmark(MemoryBlobs()).benchmark


def scores_of(benchmark: Benchmark, **changes: float) -> dict[str, ItemScore]:
    return {
        item.item_id: ItemScore(item_id=item.item_id, score=0.5, answer="x", log_probability=-1.0).model_copy(
            update=changes
        )
        for item in benchmark.items
    }


def test_a_real_model_scores_every_item_of_its_half_and_progress_adds_up(tmp_path: Path, benchmark: Benchmark) -> None:
    counted: list[int] = []
    examiner, paper = ModelExaminer(dtype="float32", device="cpu"), Paper(benchmark=benchmark, half="development")
    examined = examiner.examine(make_tiny_model(tmp_path), paper, counted.append)
    assert set(examined.scores) == {item.item_id for item in benchmark.items if item.half == "development"}
    assert sum(counted) == examiner.answers(paper)
    assert examined.general == {}
    again = examiner.examine(tmp_path, paper, counted.append)
    assert (again.scores, again.prompts) == (examined.scores, examined.prompts)


def test_the_sealed_half_is_scored_with_the_prompts_given_and_nothing_else_is_asked(
    tmp_path: Path, benchmark: Benchmark
) -> None:
    examiner = ModelExaminer(dtype="float32", device="cpu")
    second = {kind: item_kinds()[kind].settings[1] for kind in {item.kind for item in benchmark.items}}
    paper = Paper(benchmark=benchmark, half="confirmation", prompts=second)
    counted: list[int] = []
    examined = examiner.examine(make_tiny_model(tmp_path), paper, counted.append)
    assert examined.prompts == second
    assert set(examined.scores) == {item.item_id for item in benchmark.items if item.half == "confirmation"}
    assert sum(counted) == examiner.answers(paper) == 12


def test_the_sealed_half_is_never_tuned_on(benchmark: Benchmark) -> None:
    with pytest.raises(ValueError, match="chosen before it was opened"):
        Paper(benchmark=benchmark, half="confirmation")


def test_the_general_suite_is_asked_while_the_model_is_there(tmp_path: Path, benchmark: Benchmark) -> None:
    examiner = ModelExaminer(dtype="float32", device="cpu")
    paper, counted = Paper(benchmark=benchmark, half="development", general=True), list[int]()
    examined = examiner.examine(make_tiny_model(tmp_path), paper, counted.append)
    assert set(examined.general) == {item.item_id for item in general_items()}
    assert sum(counted) == examiner.answers(paper)


def test_a_missing_score_fails_the_examination(benchmark: Benchmark) -> None:
    scores = scores_of(benchmark)
    check_complete(benchmark.items, scores)
    scores.popitem()
    with pytest.raises(Unscored, match="1 of 24 items have no score"):
        check_complete(benchmark.items, scores)


@pytest.mark.parametrize(
    "changes", [{"score": math.nan}, {"score": 1.1}, {"score": -0.1}, {"log_probability": math.nan}]
)
def test_a_score_that_is_no_number_of_0_to_1_fails_the_examination(
    benchmark: Benchmark, changes: dict[str, float]
) -> None:
    with pytest.raises(Unscored, match="no usable numbers"):
        check_complete(benchmark.items, scores_of(benchmark, **changes))
