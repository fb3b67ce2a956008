"""Waiting for the corpus, then freezing the benchmark: once per domain, before anything is trained.

Owns: when it is time, and saying what is still missing. Does not know: what items are.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from jupiter.errors import Unavailable
from jupiter.evaluator.benchmark import Benchmark, BenchmarkTooSmallError
from jupiter.evaluator.benchmarks import FrozenBenchmark, find_frozen, freeze, shortfall
from jupiter.evaluator.corpus_log import CorpusLog, read_documents
from jupiter.evaluator.items import Corpus
from jupiter.evaluator.items.item import SessionRunner
from jupiter.events import DocumentAccepted
from jupiter.records import Document
from jupiter.service import Runtime

__all__ = ["BuildBenchmark", "Freezer"]

log = logging.getLogger(__name__)

LOOK_S = 0.5
"""How often the log, the clock and the pointer are looked at."""


class BuildBenchmark(Protocol):
    """What `benchmark.build_benchmark` is; tests give a small one."""

    def __call__(self, corpus: Corpus, *, domain: str, samples: int, seed: int) -> Benchmark: ...


class RunSessions(Protocol):
    """What `sessions.run_sessions` is; tests run none."""

    def __call__(
        self, documents: Sequence[Document], progress: Callable[[int, int], None], /
    ) -> SessionRunner | None: ...


@dataclass(kw_only=True)
class Freezer:
    """The background task that ends with a frozen benchmark."""

    runtime: Runtime
    build: BuildBenchmark
    run_sessions: RunSessions
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
        documents = list(corpus.documents.values())
        await self.runtime.status("building", detail=f"reading {len(documents)} documents for the benchmark")
        loop = asyncio.get_running_loop()

        def progress(done: int, total: int) -> None:
            status = self.runtime.status(
                "building", detail="running documented examples", done=done, total=total, unit="documents"
            )
            asyncio.run_coroutine_threadsafe(status, loop)

        try:
            benchmark = await asyncio.to_thread(self._build, documents, progress)
        except BenchmarkTooSmallError as error:
            return str(error)
        missing = shortfall(benchmark, samples=samples)
        if missing:
            return (
                f"{corpus.held_out} held-out documents give {missing}; publish more documents (split: held_out), or "
                "lower self_improvement.benchmark_samples"
            )
        return await asyncio.to_thread(freeze, self.runtime.blobs, benchmark)

    def _build(self, accepted: Sequence[DocumentAccepted], progress: Callable[[int, int], None]) -> Benchmark:
        """Read the documents, run their examples, make the items. Blocks."""
        settings = self.runtime.config
        documents = read_documents(self.runtime.blobs, accepted)
        held_out = tuple(document for document in documents if document.split == "held_out")
        training = tuple(document for document in documents if document.split == "training")
        corpus = Corpus(held_out=held_out, training=training, run_session=self.run_sessions(held_out, progress))
        return self.build(
            corpus,
            domain=self.runtime.domain,
            samples=settings.self_improvement.benchmark_samples,
            seed=settings.evaluator.seed,
        )

    async def _say_waiting(self, missing: str, corpus: CorpusLog) -> None:
        await self.runtime.status(
            "waiting",
            detail=f"benchmark: {missing}",
            documents=len(corpus.documents),
            held_out=corpus.held_out,
        )
