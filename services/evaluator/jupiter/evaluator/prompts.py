"""Prompt settings: tried on the development half for each model, then frozen for the run.

Owns: the choice. Does not know: which model is which.
The same model with another number of worked examples is "better" by 2 points (measured, DESIGN §9), so both
contestants get the setting that suits them best, found with the same effort.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jupiter.evaluator.benchmark import Benchmark
from jupiter.evaluator.items import PromptSetting, item_kinds
from jupiter.evaluator.scoring import Progress, score_kind

__all__ = ["TUNING_ITEMS_MAX", "tune_prompts", "tuning_total"]

TUNING_ITEMS_MAX = 12
"""Development items of a kind on which each setting is tried."""


def _tuned_kinds(benchmark: Benchmark) -> list[str]:
    return sorted({item.kind for item in benchmark.items})


def tuning_total(benchmark: Benchmark) -> int:
    """Return how many answers `tune_prompts` asks one model for."""
    total = 0
    for name in _tuned_kinds(benchmark):
        settings = item_kinds()[name].settings
        items = sum(item.kind == name and item.half == "development" for item in benchmark.items)
        total += min(items, TUNING_ITEMS_MAX) * len(settings) if len(settings) > 1 else 0
    return total


def tune_prompts(
    model: Any, tokenizer: Any, *, benchmark: Benchmark, progress: Progress
) -> Mapping[str, PromptSetting]:
    """Return kind to the setting with the highest mean score; ties go to the higher likelihood."""
    chosen: dict[str, PromptSetting] = {}
    for name in _tuned_kinds(benchmark):
        settings = item_kinds()[name].settings
        chosen[name] = settings[0]
        items = [item for item in benchmark.items if item.kind == name and item.half == "development"][
            :TUNING_ITEMS_MAX
        ]
        if len(settings) == 1 or not items:
            continue
        best = (-1.0, float("-inf"))
        for setting in settings:
            scores = score_kind(
                model, tokenizer, kind=name, setting=setting, items=items, benchmark=benchmark, progress=progress
            )
            reached = (sum(s.score for s in scores) / len(scores), sum(s.log_probability for s in scores) / len(scores))
            if reached > best:
                best, chosen[name] = reached, setting
    return chosen
