"""Scoring and prompt tuning end to end, with a tiny random model."""

from __future__ import annotations

from typing import Any

import pytest

from jupiter.evaluator.benchmark import Benchmark, build_benchmark
from jupiter.evaluator.items import PromptSetting, item_kinds
from jupiter.evaluator.prompts import tune_prompts, tuning_total
from jupiter.evaluator.scoring import score_items
from tests.tiny_model import make_tiny_model
from tests.unit.evaluator.corpora import make_corpus


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    directory = make_tiny_model(tmp_path_factory.mktemp("tiny"))
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded: Any = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    model = loaded.eval()
    return model, AutoTokenizer.from_pretrained(directory)


@pytest.fixture(scope="module")
def benchmark() -> Benchmark:
    return build_benchmark(make_corpus(), domain="toy", samples=40, seed=0)


def test_every_item_is_scored_once_and_reproducibly(tiny: tuple[Any, Any], benchmark: Benchmark) -> None:
    settings = {name: kind.settings[0] for name, kind in item_kinds().items()}
    done: list[int] = []
    scored = score_items(*tiny, items=benchmark.items, benchmark=benchmark, settings=settings, progress=done.append)
    assert set(scored) == {item.item_id for item in benchmark.items}
    assert sum(done) == len(benchmark.items)
    assert all(0 <= score.score <= 1 for score in scored.values())
    again = score_items(*tiny, items=benchmark.items, benchmark=benchmark, settings=settings, progress=done.append)
    assert {key: value.score for key, value in again.items()} == {key: value.score for key, value in scored.items()}


def test_tuning_offers_every_kind_a_setting_and_counts_its_work(tiny: tuple[Any, Any], benchmark: Benchmark) -> None:
    done: list[int] = []
    tuned = tune_prompts(*tiny, benchmark=benchmark, progress=done.append)
    assert set(tuned.prompts) == {item.kind for item in benchmark.items}
    assert all(tuned.prompts[name] in item_kinds()[name].settings for name in tuned.prompts)
    assert sum(done) == tuning_total(benchmark) + len(tuned.scores)


def test_what_tuning_scored_need_not_be_asked_again(tiny: tuple[Any, Any], benchmark: Benchmark) -> None:
    tuned = tune_prompts(*tiny, benchmark=benchmark, progress=_ignore)
    items = [item for item in benchmark.items if item.item_id in tuned.scores]
    assert items
    assert {item.half for item in items} == {"development"}
    again = score_items(*tiny, items=items, benchmark=benchmark, settings=tuned.prompts, progress=_ignore)
    for item_id, score in tuned.scores.items():
        assert (again[item_id].score, again[item_id].answer) == (score.score, score.answer)
        assert again[item_id].log_probability == pytest.approx(score.log_probability, abs=1e-5)


def test_batches_change_no_score(tiny: tuple[Any, Any], benchmark: Benchmark) -> None:
    for choose in (0, -1):
        settings = {name: kind.settings[choose] for name, kind in item_kinds().items()}
        together = score_items(*tiny, items=benchmark.items, benchmark=benchmark, settings=settings, progress=_ignore)
        for item in benchmark.items:
            (alone,) = score_items(
                *tiny, items=[item], benchmark=benchmark, settings=settings, progress=_ignore
            ).values()
            assert (together[item.item_id].score, together[item.item_id].answer) == (alone.score, alone.answer)
            assert together[item.item_id].log_probability == pytest.approx(alone.log_probability, abs=1e-4)


def _ignore(count: int) -> None:
    """Count nothing."""


def test_progress_may_stop_the_scoring(tiny: tuple[Any, Any], benchmark: Benchmark) -> None:
    def stop(count: int) -> None:
        raise InterruptedError("told to stop")

    settings = {name: PromptSetting(0, 0) for name in item_kinds()}
    with pytest.raises(InterruptedError):
        score_items(*tiny, items=benchmark.items, benchmark=benchmark, settings=settings, progress=stop)
