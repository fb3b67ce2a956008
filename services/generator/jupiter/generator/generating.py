"""A request's prompts through an engine, counted and by turns.

Owns: what every generating thread does between two steps. Does not know: which version it is, or what becomes of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jupiter.compute import Turns
from jupiter.generator.batches import Job
from jupiter.generator.engines import Completion, Engine
from jupiter.generator.progress import Counts
from jupiter.records import Sampling

__all__ = ["generate"]


def generate(
    engine: Engine, handle: Any, jobs: Sequence[Job], *, sampling: Sampling, counts: Counts, turns: Turns
) -> tuple[list[Completion], float]:
    """Run in the worker thread. Seconds are those of computing, in turns or at a stretch."""
    waited_before_s = turns.waited_s

    def progress(samples: int, tokens: int) -> None:
        counts.add(samples, tokens)
        turns.between()

    counts.begin()
    prompts = [job.prompt for job in jobs]
    completions = engine.generate(handle, prompts, sampling=sampling, progress=progress)
    return completions, round(counts.seconds() - (turns.waited_s - waited_before_s), 3)
