"""Another benchmark, when the sealed half of the one in use is used up or a person asks.

Owns: what held-out material there is that no benchmark has used, when to ask the evaluator for another benchmark, and
the request. Does not know: how a benchmark is built and whether it can be (the evaluator says), nor any error spending:
a renewal gives back none of the openings against a generator.
"""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import dataclass

from jupiter import manifests
from jupiter.controller.deps import Deps
from jupiter.errors import Conflict, IntegrityError, NotFound, Rejected
from jupiter.events import BenchmarkFrozen, BenchmarkRenewalRefused, BenchmarkRenewalRequested
from jupiter.ledger import openings
from jupiter.reports import CLUSTERS_MIN

__all__ = ["Fresh", "Renewals", "refusal_of"]

log = logging.getLogger(__name__)

ACTOR = "controller"
BENCHMARK_FILE = "benchmark.json"
GROWTH_MIN = 1.25
"""By how much the new documents must have grown since a refusal before the controller asks again by itself: each try
runs their examples. A person may ask at any time."""
REASON_CHARS_MAX = 1_000


@dataclass(frozen=True, kw_only=True)
class Fresh:
    """Held-out documents of sources from which no benchmark has an item."""

    documents: int
    sources: int


class Renewals:
    """Of one domain. Nothing is remembered but what never changes: which sources a benchmark has items from."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._used: dict[str, frozenset[str]] = {}
        """Benchmark digest -> its sources."""

    async def advance(self) -> None:
        """Ask by ourselves once the openings are used up and there is something new to ask about."""
        newest = self._deps.state.benchmark
        if newest is None or self.openings(newest) < self._deps.config.self_improvement.sealed_openings_max:
            return
        if self.pending(newest.generation + 1) is not None:
            return
        refused = self.refusal(newest.generation + 1)
        try:
            if refused and (await self.fresh()).documents < refused.documents * GROWTH_MIN:
                return
            asked = await self.ask(ACTOR, "the sealed half is used up", generation=newest.generation)
        except Rejected:
            return  # there is too little to ask about: the gate's HOLD says what to do
        log.info("benchmark generation %d was asked for: %d new documents", asked.generation, asked.documents)

    async def ask(self, actor: str, reason: str, *, generation: int) -> BenchmarkRenewalRequested:
        """Ask for the successor of `generation`; asking again before it is answered changes nothing.

        Raises Conflict when that is not the newest, Rejected when it is sure already that there will be none.
        """
        newest = self._deps.state.benchmark
        if newest is None:
            raise Conflict("no benchmark is frozen yet: the evaluator freezes the first one by itself")
        if newest.generation != generation:
            raise Conflict(f"benchmark generation {newest.generation} is in use, not {generation}: look again")
        request = self.pending(generation + 1)
        if request is not None:
            return request
        request = await self._request(newest, actor, reason)
        await self._deps.bus.publish(request)
        self._deps.state.apply(request)
        return request

    async def _request(self, newest: BenchmarkFrozen, actor: str, reason: str) -> BenchmarkRenewalRequested:
        fresh = await self.fresh()
        if fresh.sources < CLUSTERS_MIN:
            raise Rejected(
                f"{fresh.documents} held-out documents from {fresh.sources} sources are new; a sealed half needs "
                f"{CLUSTERS_MIN} sources that no benchmark has used: `jupiter publish --split held_out FILES`, then "
                "`jupiter benchmark renew`"
            )
        request = BenchmarkRenewalRequested(
            domain=self._deps.state.domain,
            generation=newest.generation + 1,
            documents=fresh.documents,
            samples=self._deps.config.self_improvement.benchmark_samples,
            actor=actor,
            reason=reason,
        )
        refused = self.refusal(request.generation)
        if refused is not None and (refused.documents, refused.samples) == (request.documents, request.samples):
            raise Rejected(f"the evaluator refused with the same documents: {refused.reason}")
        return request

    def openings(self, benchmark: BenchmarkFrozen) -> int:
        """Return how often its sealed half was opened, against whatever generator."""
        return len(openings(self._deps.ledger.entries, benchmark_digest=benchmark.digest))

    def newest(self, generation: int) -> BenchmarkRenewalRequested | None:
        """Return the newest request for a generation."""
        return next(reversed(self._deps.state.renewals.get(generation, ())), None)

    def pending(self, generation: int) -> BenchmarkRenewalRequested | None:
        """Return the request for a generation that the evaluator has not answered."""
        refused = {(one.documents, one.samples) for one in self._deps.state.renewals_refused.get(generation, ())}
        asked = self._deps.state.renewals.get(generation, ())
        return next((one for one in reversed(asked) if (one.documents, one.samples) not in refused), None)

    def refusal(self, generation: int) -> BenchmarkRenewalRefused | None:
        """Return the evaluator's newest refusal of a generation."""
        return next(reversed(self._deps.state.renewals_refused.get(generation, ())), None)

    async def fresh(self) -> Fresh:
        """Return what there is now. Raises Rejected when a benchmark cannot be read: nobody knows what it has used."""
        state = self._deps.state
        used = await asyncio.to_thread(self._used_sources, tuple(state.benchmarks.values()))
        found = [document for document in state.held_out_documents() if document.group not in used]
        return Fresh(documents=len(found), sources=len({one.group for one in found}))

    def _used_sources(self, benchmarks: tuple[BenchmarkFrozen, ...]) -> frozenset[str]:
        """Of both halves: a source of the development half, which may serve there again, can never be sealed."""
        for one in benchmarks:
            if one.digest not in self._used:
                self._used[one.digest] = self._sources_of(one)
        return frozenset[str]().union(*(self._used[one.digest] for one in benchmarks))

    def _sources_of(self, frozen: BenchmarkFrozen) -> frozenset[str]:
        try:
            manifest = manifests.read(self._deps.blobs, frozen.manifest_key, sha256=frozen.manifest_sha256).manifest
            data = manifests.download_bytes(self._deps.blobs, manifest.file(BENCHMARK_FILE))
        except (NotFound, IntegrityError, KeyError) as error:
            raise Rejected(f"benchmark {frozen.digest[:12]} cannot be read: {error}; restore the object") from error
        return frozenset(item["cluster"] for item in json.loads(data)["items"])


def refusal_of(request: BenchmarkRenewalRequested, reason: str) -> BenchmarkRenewalRefused:
    """Return the answer to a request that the evaluator could not work off."""
    return BenchmarkRenewalRefused(
        domain=request.domain,
        generation=request.generation,
        documents=request.documents,
        samples=request.samples,
        reason=reason[:REASON_CHARS_MAX],
    )
