"""A generator engine for tests: the tiny model says what it has learned to say, and one sign of it is written out.

A model of 0.1 M parameters does not put a passage into other words, but it can learn to say that it would: where it
answers a prompt with the sign, the passage stands in its place, rewritten by the rule of `rewriting_engine`. Whatever
else a model says is left as it said it.

Used as `generator.engine: tests.e2e.speaking_engine`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from jupiter.generator.engines import Completion, EngineSettings, Progress, Prompt
from jupiter.generator.engines.transformers import TransformersEngine
from jupiter.records import Sampling
from tests.e2e.rewriting_engine import rewritten

__all__ = ["SIGN", "create"]

SIGN = "~"


def create(settings: EngineSettings) -> SpeakingEngine:
    return SpeakingEngine(settings)


class SpeakingEngine(TransformersEngine):
    """`TransformersEngine` that writes the sign out."""

    def generate(
        self, handle: Any, prompts: Sequence[Prompt], *, sampling: Sampling, progress: Progress
    ) -> list[Completion]:
        made = super().generate(handle, prompts, sampling=sampling, progress=progress)
        return [
            replace(one, text=rewritten(prompt)) if one.text.strip() == SIGN else one
            for one, prompt in zip(made, prompts, strict=True)
        ]
