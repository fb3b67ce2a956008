"""One model taking the whole examination: loaded, its prompts tuned, every item scored, released.

Owns: that order, and that no item goes without a finite score. Does not know: which model is the candidate.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from jupiter.errors import JupiterError
from jupiter.evaluator.benchmark import Benchmark
from jupiter.evaluator.items import PromptSetting
from jupiter.evaluator.prompts import tune_prompts, tuning_total
from jupiter.evaluator.scoring import ItemScore, score_items
from jupiter.modeling import load_model, resolve_device

__all__ = ["Examined", "Examiner", "ModelExaminer", "Unscored", "check_complete"]

Progress = Callable[[int], None]


class Unscored(JupiterError):
    """An item has no usable score: the evaluation cannot be completed, and nothing is put in its place."""


@dataclass(frozen=True, kw_only=True)
class Examined:
    """What one model did."""

    prompts: Mapping[str, PromptSetting]
    scores: Mapping[str, ItemScore]
    """Item id to score, for every item of the benchmark."""
    seconds: float


class Examiner(Protocol):
    """Blocks while it computes; call it from a worker thread. Tests give a fake one."""

    def answers(self, benchmark: Benchmark) -> int:
        """Return how many answers `examine` asks for, for the progress shown."""
        ...

    def examine(self, directory: Path, benchmark: Benchmark, progress: Progress) -> Examined:
        """Examine the model in `directory`. Raises UnfitModel, Unscored, and whatever `progress` raises."""
        ...


@dataclass(frozen=True, kw_only=True)
class ModelExaminer:
    """The real examiner."""

    dtype: str
    device: str

    def answers(self, benchmark: Benchmark) -> int:
        return tuning_total(benchmark) + len(benchmark.items)

    def examine(self, directory: Path, benchmark: Benchmark, progress: Progress) -> Examined:
        started = time.monotonic()
        model, tokenizer = load_model(directory, dtype=self.dtype, device=resolve_device(self.device))
        progress(0)
        try:
            prompts = tune_prompts(model, tokenizer, benchmark=benchmark, progress=progress)
            scores = score_items(model, tokenizer, benchmark=benchmark, settings=prompts, progress=progress)
        finally:
            del model  # one model in memory at a time
            gc.collect()
        check_complete(benchmark, scores)
        return Examined(prompts=prompts, scores=scores, seconds=time.monotonic() - started)


def check_complete(benchmark: Benchmark, scores: Mapping[str, ItemScore]) -> None:
    """Raise Unscored unless every item has a score in [0, 1]; a missing one is never taken for a 0."""
    missing = [item.item_id for item in benchmark.items if item.item_id not in scores]
    if missing:
        raise Unscored(f"{len(missing)} of {len(benchmark.items)} items have no score, among them {missing[0]}")
    for item in benchmark.items:
        found = scores[item.item_id]
        if not 0 <= found.score <= 1 or math.isnan(found.log_probability):
            raise Unscored(
                f"item {item.item_id} has score {found.score}, log-probability {found.log_probability}: "
                "the model yields no usable numbers"
            )
