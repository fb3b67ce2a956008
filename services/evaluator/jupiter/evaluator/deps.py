"""What the evaluator's handlers work with.

Owns: the parts that outlive a message. Does not know: who puts them together (`wiring`).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from jupiter.compute import ComputeLease
from jupiter.errors import Retry
from jupiter.evaluator.benchmarks import FrozenBenchmark, find_frozen
from jupiter.evaluator.building import Builder
from jupiter.evaluator.contestants import Contestants
from jupiter.evaluator.counting import Counting
from jupiter.evaluator.examination import Examiner
from jupiter.evaluator.judge import Judge
from jupiter.generations import is_newest
from jupiter.service import Runtime

__all__ = ["WAIT_S", "Deps", "the_frozen"]

WAIT_S = 2.0
"""Before a message that came too early is looked at again."""


@dataclass(kw_only=True)
class Deps:
    """Built once. `frozen` is the newest benchmark when it was looked at last."""

    runtime: Runtime
    contestants: Contestants
    examiner: Examiner
    lease: ComputeLease
    builder: Builder
    counting: Counting
    judge: Judge | None = None
    frozen: FrozenBenchmark | None = None
    examining: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while models are examined: a checkpoint and a confirmation never load theirs side by side."""


async def the_frozen(deps: Deps) -> FrozenBenchmark:
    """Return the benchmark in use: the domain's newest. Raises Retry while there is none, IntegrityError."""
    blobs, domain = deps.runtime.blobs, deps.runtime.domain
    if deps.frozen is None or not await asyncio.to_thread(is_newest, blobs, domain, deps.frozen.generation):
        deps.frozen = await asyncio.to_thread(find_frozen, blobs, domain)
    if deps.frozen is None:
        raise Retry("the benchmark is not frozen yet", delay_s=WAIT_S, counts=False)
    return deps.frozen
