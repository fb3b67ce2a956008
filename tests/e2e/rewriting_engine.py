"""A generator engine for tests: the tiny model is really loaded, attested and run, but a rule writes the words.

A model of 0.2 M random parameters writes noise, which the curator rightly drops. So that something is left to train
on, the completion is replaced by the passage with a new beginning and some of its words left out, drawn by the seed.

Used as `generator.engine: tests.e2e.rewriting_engine`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from jupiter.generator.engines import Completion, EngineSettings, Progress, Prompt
from jupiter.generator.engines.transformers import TransformersEngine
from jupiter.records import Sampling

BEGINNINGS = ("Lets you", "Helps to", "Used when you", "Meant to", "Here to", "Made to", "Good to", "A way to")
LABELS = ("Sentence: ", "Documentation: ")
KEPT_SHARE = 0.7
WORDS_MAX = 24


def create(settings: EngineSettings) -> RewritingEngine:
    return RewritingEngine(settings)


class RewritingEngine(TransformersEngine):
    """`TransformersEngine` whose words are replaced."""

    def generate(
        self, handle: Any, prompts: Sequence[Prompt], *, sampling: Sampling, progress: Progress
    ) -> list[Completion]:
        brief = sampling.model_copy(update={"max_new_tokens": 2})
        made = super().generate(handle, prompts, sampling=brief, progress=progress)
        return [
            Completion(prompt=one.prompt, text=rewritten(prompt), tokens=one.tokens, finish_reason="stop")
            for one, prompt in zip(made, prompts, strict=True)
        ]


def rewritten(prompt: Prompt) -> str:
    """Return most words of the prompt's last passage, in their order, after another beginning."""
    draw = random.Random(prompt.seed)
    passage = next(
        line.split(": ", 1)[1]
        for line in reversed(prompt.text.splitlines())
        if line.startswith(LABELS) and line.split(": ", 1)[1:]
    )
    words = passage.split()
    kept = [word for word in words if draw.random() < KEPT_SHARE][:WORDS_MAX] or words[:WORDS_MAX]
    return f" {draw.choice(BEGINNINGS)} {' '.join(kept).rstrip('.,;:')}."
