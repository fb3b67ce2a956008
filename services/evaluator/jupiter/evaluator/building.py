"""From accepted documents to a benchmark that is fit to be frozen, or to what keeps it from being one.

Owns: reading the documents and running their examples, then building. Does not know: when a benchmark is wanted
(`freezing`, `renewing`), nor what items are (`benchmark`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from jupiter import withdrawals
from jupiter.evaluator.benchmark import Benchmark, BenchmarkTooSmallError
from jupiter.evaluator.benchmarks import shortfall
from jupiter.evaluator.corpus_log import read_documents
from jupiter.evaluator.items import Corpus
from jupiter.evaluator.items.item import SessionRunner
from jupiter.events import DocumentAccepted
from jupiter.records import Document
from jupiter.service import Runtime

__all__ = ["BuildBenchmark", "Builder", "RunSessions"]


class BuildBenchmark(Protocol):
    """What `benchmark.build_benchmark` is; tests give a small one."""

    def __call__(
        self, corpus: Corpus, *, domain: str, samples: int, seed: int, excluded: Collection[str] = ()
    ) -> Benchmark: ...


class RunSessions(Protocol):
    """What `sessions.run_sessions` is; tests run none."""

    def __call__(
        self, documents: Sequence[Document], progress: Callable[[int, int], None], /
    ) -> SessionRunner | None: ...


@dataclass(frozen=True, kw_only=True)
class Builder:
    """Builds benchmarks of one domain."""

    runtime: Runtime
    items: BuildBenchmark
    run_sessions: RunSessions

    async def corpus(self, accepted: Sequence[DocumentAccepted]) -> Corpus:
        """Return the documents, the examples among them run; what was recalled is no material."""
        withdrawn = (await withdrawals.read(self.runtime.bus, self.runtime.domain)).withdrawn
        documents = [one for one in accepted if not withdrawn.has_document(one.document_id)]
        await self.runtime.status("building", detail=f"reading {len(documents)} documents for the benchmark")
        loop = asyncio.get_running_loop()

        def progress(done: int, total: int) -> None:
            status = self.runtime.status(
                "building", detail="running documented examples", done=done, total=total, unit="documents"
            )
            asyncio.run_coroutine_threadsafe(status, loop)

        return await asyncio.to_thread(self._read, documents, progress)

    def _read(self, accepted: Sequence[DocumentAccepted], progress: Callable[[int, int], None]) -> Corpus:
        documents = read_documents(self.runtime.blobs, accepted)
        held_out = tuple(document for document in documents if document.split == "held_out")
        training = tuple(document for document in documents if document.split == "training")
        return Corpus(held_out=held_out, training=training, run_session=self.run_sessions(held_out, progress))

    def build(self, corpus: Corpus, *, samples: int, excluded: Collection[str] = ()) -> Benchmark | str:
        """Return a benchmark without the items `excluded`, or what is missing. Blocks."""
        seed = self.runtime.config.evaluator.seed
        try:
            made = self.items(corpus, domain=self.runtime.domain, samples=samples, seed=seed, excluded=excluded)
        except BenchmarkTooSmallError as error:
            return str(error)
        missing = shortfall(made, samples=samples)
        return made if missing is None else f"{len(corpus.held_out)} held-out documents give {missing}"
