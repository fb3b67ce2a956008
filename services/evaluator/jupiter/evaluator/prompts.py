"""Prompt settings: tried on the development half for each model, then frozen for the run.

Owns: the choice, and the scores that were reached with it. Does not know: which model is which.
The same model with another number of worked examples is "better" by 2 points (measured, DESIGN §9), so both
contestants get the setting that suits them best, found with the same effort.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from jupiter.evaluator.benchmark import Benchmark
from jupiter.evaluator.items import Item, PromptSetting, item_kinds
from jupiter.evaluator.scoring import ItemScore, Progress, score_kind

__all__ = ["TUNING_ITEMS_MAX", "Tuned", "tune_prompts", "tuning_total"]

TUNING_ITEMS_MAX = 12
"""Development items of a kind on which each setting is tried."""


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """The settings, and what was scored with them on the way: those items need not be asked again."""

    prompts: Mapping[str, PromptSetting]
    """For every kind of the benchmark, also one that only the sealed half has."""
    scores: Mapping[str, ItemScore] = field(default_factory=dict)


def _tuned_kinds(benchmark: Benchmark) -> list[str]:
    return sorted({item.kind for item in benchmark.items})


def _tuning_items(benchmark: Benchmark, kind: str) -> list[Item]:
    """Return the items that the kind's settings are tried on; none where there is nothing to choose."""
    if len(item_kinds()[kind].settings) == 1:
        return []
    return [item for item in benchmark.half("development") if item.kind == kind][:TUNING_ITEMS_MAX]


def tuning_total(benchmark: Benchmark) -> int:
    """Return how many answers `tune_prompts` asks one model for that are not among its scores."""
    return sum(
        len(_tuning_items(benchmark, name)) * (len(item_kinds()[name].settings) - 1) for name in _tuned_kinds(benchmark)
    )


def tune_prompts(model: Any, tokenizer: Any, *, benchmark: Benchmark, progress: Progress) -> Tuned:
    """Return kind to the setting with the highest mean score; ties go to the higher likelihood."""
    chosen: dict[str, PromptSetting] = {}
    kept: dict[str, ItemScore] = {}
    for name in _tuned_kinds(benchmark):
        settings, items = item_kinds()[name].settings, _tuning_items(benchmark, name)
        chosen[name] = settings[0]
        best, of_best = (-1.0, float("-inf")), list[ItemScore]()
        for setting in settings if items else ():
            scores = score_kind(
                model, tokenizer, kind=name, setting=setting, items=items, benchmark=benchmark, progress=progress
            )
            reached = (fmean(score.score for score in scores), fmean(score.log_probability for score in scores))
            if reached > best:
                best, of_best, chosen[name] = reached, scores, setting
        kept |= {score.item_id: score for score in of_best}
    return Tuned(prompts=chosen, scores=kept)
