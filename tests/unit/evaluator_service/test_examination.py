"""A tiny real model takes the examination; an item without a usable score fails it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from jupiter.blobs.memory import MemoryBlobs
from jupiter.evaluator.benchmark import Benchmark
from jupiter.evaluator.examination import ModelExaminer, Unscored, check_complete
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


def test_a_real_model_scores_every_item_and_progress_adds_up(tmp_path: Path, benchmark: Benchmark) -> None:
    counted: list[int] = []
    examiner = ModelExaminer(dtype="float32", device="cpu")
    examined = examiner.examine(make_tiny_model(tmp_path), benchmark, counted.append)
    assert set(examined.scores) == {item.item_id for item in benchmark.items}
    assert sum(counted) == examiner.answers(benchmark)
    again = examiner.examine(tmp_path, benchmark, counted.append)
    assert (again.scores, again.prompts) == (examined.scores, examined.prompts)


def test_a_missing_score_fails_the_examination(benchmark: Benchmark) -> None:
    scores = scores_of(benchmark)
    check_complete(benchmark, scores)
    scores.popitem()
    with pytest.raises(Unscored, match="1 of 24 items have no score"):
        check_complete(benchmark, scores)


@pytest.mark.parametrize(
    "changes", [{"score": math.nan}, {"score": 1.1}, {"score": -0.1}, {"log_probability": math.nan}]
)
def test_a_score_that_is_no_number_of_0_to_1_fails_the_examination(
    benchmark: Benchmark, changes: dict[str, float]
) -> None:
    with pytest.raises(Unscored, match="no usable numbers"):
        check_complete(benchmark, scores_of(benchmark, **changes))
