"""Waiting for the corpus, then freezing the first benchmark: once per domain, before anything is trained.

Owns: when it is time, and saying what is still missing. Does not know: what items are (`building`), nor any benchmark
after the first (`renewing`).
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass

from jupiter.errors import Unavailable
from jupiter.evaluator.benchmarks import FrozenBenchmark, find_frozen, freeze
from jupiter.evaluator.building import Builder
from jupiter.evaluator.corpus_log import CorpusLog
from jupiter.service import Runtime

__all__ = ["Freezer"]

log = logging.getLogger(__name__)

LOOK_S = 0.5
"""How often the log, the clock and the pointer are looked at."""


@dataclass(kw_only=True)
class Freezer:
    """The background task that ends with a frozen benchmark."""

    runtime: Runtime
    builder: Builder
    look_s: float = LOOK_S

    async def run(self) -> None:
        """Adopt or freeze the benchmark and announce it; publishing again after a restart is harmless."""
        while not self.runtime.stop.is_set():
            try:
                frozen = await self._frozen()
                if frozen is not None:
                    await self._announce(frozen)
            except Unavailable as error:
                log.warning("the benchmark waits for a server: %s", error)
                await self._pause()
            else:
                return

    async def _announce(self, frozen: FrozenBenchmark) -> None:
        await self.runtime.bus.publish(frozen.event)
        counts = {name: sum(kinds.values()) for name, kinds in frozen.benchmark.counts().items()}
        detail = f"benchmark {frozen.digest[:12]} frozen: {len(frozen.benchmark.items)} items"
        log.info("%s (%s)", detail, counts)
        await self.runtime.status("idle", detail=detail, benchmark=frozen.digest, items=counts)

    async def _frozen(self) -> FrozenBenchmark | None:
        """Return the benchmark of the domain, waiting for documents as long as it takes; None when told to stop."""
        corpus = CorpusLog()
        following = asyncio.create_task(corpus.follow(self.runtime.bus, self.runtime.domain), name="corpus-log")
        try:
            return await self._wait(corpus, following)
        finally:
            following.cancel()
            with suppress(asyncio.CancelledError):
                await following

    async def _wait(self, corpus: CorpusLog, following: asyncio.Task[None]) -> FrozenBenchmark | None:
        tried, missing = 0, "no document was accepted yet"
        while not self.runtime.stop.is_set():
            if following.done():
                following.result()  # the log never ends by itself: raise what ended it
            frozen = await asyncio.to_thread(find_frozen, self.runtime.blobs, self.runtime.domain)
            if frozen is not None:
                return frozen
            settled = corpus.quiet_s >= self.runtime.config.evaluator.corpus_quiet_s
            if settled and len(corpus.documents) > tried:
                tried = len(corpus.documents)
                outcome = await self._try(corpus)
                if isinstance(outcome, FrozenBenchmark):
                    return outcome
                missing = outcome
                log.info("no benchmark yet: %s", missing)
            elif len(corpus.documents) > tried:
                missing = f"{len(corpus.documents)} documents so far, {corpus.held_out} held out; more are coming in"
            await self._say_waiting(missing, corpus)
            await self._pause()
        return None

    async def _pause(self) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self.runtime.stop.wait(), self.look_s)

    async def _try(self, corpus: CorpusLog) -> FrozenBenchmark | str:
        """Build from what is there; return the frozen benchmark, or what is missing."""
        samples = self.runtime.config.self_improvement.benchmark_samples
        material = await self.builder.corpus(list(corpus.documents.values()))
        made = await asyncio.to_thread(self.builder.build, material, samples=samples)
        return made if isinstance(made, str) else await asyncio.to_thread(freeze, self.runtime.blobs, made)

    async def _say_waiting(self, missing: str, corpus: CorpusLog) -> None:
        await self.runtime.status(
            "waiting",
            detail=f"benchmark: {missing}",
            documents=len(corpus.documents),
            held_out=corpus.held_out,
        )
