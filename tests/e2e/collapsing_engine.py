"""The rewriting engine, made to collapse: while a file exists it answers every prompt with its answer to one, greedily.

Used as `generator.engine: tests.e2e.collapsing_engine`; the environment variable COLLAPSE_WHILE names the file.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jupiter.generator.engines import Completion, EngineSettings, Progress, Prompt
from jupiter.records import Sampling
from tests.e2e.rewriting_engine import RewritingEngine

__all__ = ["COLLAPSE_VARIABLE", "create"]

COLLAPSE_VARIABLE = "COLLAPSE_WHILE"


def create(settings: EngineSettings) -> CollapsingEngine:
    return CollapsingEngine(settings)


class CollapsingEngine(RewritingEngine):
    """`RewritingEngine`; temperature 0 on one prompt while the file exists."""

    def __init__(self, settings: EngineSettings) -> None:
        super().__init__(settings)
        self._collapse = Path(os.environ[COLLAPSE_VARIABLE])
        self._one: Prompt | None = None

    def generate(
        self, handle: Any, prompts: Sequence[Prompt], *, sampling: Sampling, progress: Progress
    ) -> list[Completion]:
        if not self._collapse.exists():
            return super().generate(handle, prompts, sampling=sampling, progress=progress)
        self._one = self._one or replace(prompts[0], seed=0)
        greedy = sampling.model_copy(update={"temperature": 0.0})
        same = super().generate(handle, [self._one] * len(prompts), sampling=greedy, progress=progress)
        return [replace(one, prompt=prompt.text) for one, prompt in zip(same, prompts, strict=True)]
