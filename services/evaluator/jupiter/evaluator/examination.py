"""One model taking an examination: loaded, its prompts tuned or given, every item of one half scored, released.

Owns: that order, and that no item goes without a finite score. Does not know: which model is the candidate.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from jupiter.evaluator.benchmark import Benchmark
from jupiter.evaluator.general import examine as examine_general
from jupiter.evaluator.general import general_total
from jupiter.evaluator.items import Half, Item, PromptSetting
from jupiter.evaluator.prompts import Tuned, tune_prompts, tuning_total
from jupiter.evaluator.scoring import ItemScore, score_items
from jupiter.evaluator.unscored import Unscored
from jupiter.modeling import load_model, resolve_device

__all__ = ["Examined", "Examiner", "ModelExaminer", "Paper", "Unscored", "check_complete"]

Progress = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class Paper:
    """What one model is asked: one half of the benchmark. The other half is not touched."""

    benchmark: Benchmark
    half: Half
    prompts: Mapping[str, PromptSetting] | None = None
    """Kind to setting. None: the model's own are chosen first, on the development half."""
    general: bool = False
    """The general suite is asked too."""

    def __post_init__(self) -> None:
        if self.half == "confirmation" and self.prompts is None:
            raise ValueError("the sealed half is asked with the prompts that were chosen before it was opened")

    @property
    def items(self) -> tuple[Item, ...]:
        """Return what is scored."""
        return self.benchmark.half(self.half)


@dataclass(frozen=True, kw_only=True)
class Examined:
    """What one model did."""

    prompts: Mapping[str, PromptSetting]
    scores: Mapping[str, ItemScore]
    """Item id to score, for every item of the paper and no other."""
    seconds: float
    general: Mapping[str, float] = field(default_factory=dict)
    """Item id of the general suite to figure; empty where it was not asked."""


class Examiner(Protocol):
    """Blocks while it computes; call it from a worker thread. Tests give a fake one."""

    def answers(self, paper: Paper) -> int:
        """Return how many answers `examine` asks for, for the progress shown."""
        ...

    def examine(self, directory: Path, paper: Paper, progress: Progress) -> Examined:
        """Examine the model in `directory`. Raises UnfitModel, Unscored, and whatever `progress` raises."""
        ...


@dataclass(frozen=True, kw_only=True)
class ModelExaminer:
    """The real examiner."""

    dtype: str
    device: str

    def answers(self, paper: Paper) -> int:
        tuning = 0 if paper.prompts is not None else tuning_total(paper.benchmark)
        return tuning + len(paper.items) + (general_total() if paper.general else 0)

    def examine(self, directory: Path, paper: Paper, progress: Progress) -> Examined:
        started = time.monotonic()
        model, tokenizer = load_model(directory, dtype=self.dtype, device=resolve_device(self.device))
        progress(0)
        try:
            if paper.prompts is not None:
                tuned = Tuned(prompts=paper.prompts)
            else:
                tuned = tune_prompts(model, tokenizer, benchmark=paper.benchmark, progress=progress)
            scores = dict(tuned.scores) | score_items(
                model,
                tokenizer,
                items=[item for item in paper.items if item.item_id not in tuned.scores],
                settings=tuned.prompts,
                benchmark=paper.benchmark,
                progress=progress,
            )
            general = examine_general(model, tokenizer, progress) if paper.general else {}
        finally:
            del model  # one model in memory at a time
            gc.collect()
        check_complete(paper.items, scores)
        return Examined(prompts=tuned.prompts, scores=scores, general=general, seconds=time.monotonic() - started)


def check_complete(items: Sequence[Item], scores: Mapping[str, ItemScore]) -> None:
    """Raise Unscored unless every item has a score in [0, 1]; a missing one is never taken for a 0."""
    missing = [item.item_id for item in items if item.item_id not in scores]
    if missing:
        raise Unscored(f"{len(missing)} of {len(items)} items have no score, among them {missing[0]}")
    for item in items:
        found = scores[item.item_id]
        if not 0 <= found.score <= 1 or math.isnan(found.log_probability):
            raise Unscored(
                f"item {item.item_id} has score {found.score}, log-probability {found.log_probability}: "
                "the model yields no usable numbers"
            )
