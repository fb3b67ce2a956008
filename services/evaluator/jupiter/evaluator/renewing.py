"""Another benchmark, when the one in use shall serve no longer: the handler of `BenchmarkRenewalRequested`.

Owns: which documents and items are new, and that nothing of the new benchmark lies in shards that are there already.
Does not know: who asks and why (the controller), how items are made (`building`) or looked for (`counting`).

The pointer of the next generation is the commit point. Until it is created nothing is known of a draft; a request that
comes again finds the pointer and announces it, or is worked off anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from jupiter import keys
from jupiter.bus import Bus
from jupiter.errors import Rejected
from jupiter.evaluator.benchmark import Benchmark
from jupiter.evaluator.benchmarks import FrozenBenchmark, find_all, freeze
from jupiter.evaluator.deps import Deps
from jupiter.evaluator.items import Corpus
from jupiter.events import BenchmarkRenewalRefused, BenchmarkRenewalRequested, DocumentAccepted, Event

__all__ = ["renew_benchmark"]

log = logging.getLogger(__name__)

DRAFTS_MAX = 20
"""Each draft leaves out what shards hold of the one before. Where that is one item in twenty, the third is clean."""


async def renew_benchmark(request: BenchmarkRenewalRequested, deps: Deps) -> Sequence[Event]:
    """Freeze the next generation, or say why not; announce it again if it is there already."""
    runtime = deps.runtime
    before = await asyncio.to_thread(find_all, runtime.blobs, runtime.domain)
    if len(before) >= request.generation:
        return [before[request.generation - 1].event]
    if len(before) < request.generation - 1:
        raise Rejected(f"benchmark generation {request.generation} was asked for, and there are {len(before)} so far")
    made = await _made(request, before, deps)
    if isinstance(made, str):
        detail = f"no benchmark generation {request.generation}: {made}"
        log.warning("%s", detail)
        await runtime.status("idle", detail=detail)
        return [
            BenchmarkRenewalRefused(
                domain=runtime.domain,
                generation=request.generation,
                documents=request.documents,
                samples=request.samples,
                reason=made,
            )
        ]
    frozen = await asyncio.to_thread(freeze, runtime.blobs, made, generation=request.generation)
    detail = f"benchmark {frozen.digest[:12]} frozen as generation {frozen.generation}: {len(made.items)} items"
    log.info("%s (%s asked: %s)", detail, request.actor, request.reason)
    await runtime.status("idle", detail=detail, benchmark=frozen.digest)
    return [frozen.event]


async def _made(request: BenchmarkRenewalRequested, before: Sequence[FrozenBenchmark], deps: Deps) -> Benchmark | str:
    """Build from what was never sealed. The groups of the development half may be looked at there again."""
    sealed = [item for one in before for item in one.benchmark.half("confirmation")]
    used = {item.cluster for item in sealed}
    known = await _accepted(deps.runtime.bus, deps.runtime.domain)
    corpus = await deps.builder.corpus([one for one in known if one.split == "training" or one.group not in used])
    loop = asyncio.get_running_loop()

    def progress(done: int, total: int) -> None:
        detail = "looking for the new benchmark in earlier shards"
        status = deps.runtime.status("building", detail=detail, done=done, total=total, unit="shards")
        asyncio.run_coroutine_threadsafe(status, loop)

    excluded = {item.item_id for item in sealed}
    return await asyncio.to_thread(_clean, deps, corpus, request.samples, excluded, progress)


async def _accepted(bus: Bus, domain: str) -> list[DocumentAccepted]:
    subject = keys.subject(DocumentAccepted.channel, domain)
    found: dict[str, DocumentAccepted] = {}
    async for entry in bus.read(subject, follow=False):
        if isinstance(entry.event, DocumentAccepted):
            found.setdefault(entry.event.document_id, entry.event)
    return list(found.values())


def _clean(
    deps: Deps, corpus: Corpus, samples: int, excluded: set[str], progress: Callable[[int, int], None]
) -> Benchmark | str:
    """Draft, and draft again without the items that shards hold, until a draft is in none of them. Blocks."""
    left_out = 0
    for _ in range(DRAFTS_MAX):
        draft = deps.builder.build(corpus, samples=samples, excluded=excluded)
        if isinstance(draft, str):
            return f"{draft}; {left_out} items were left out, for earlier shards hold them" if left_out else draft
        found = deps.counting.search(draft, progress).values()
        held = frozenset[str]().union(*(one.items for one in found if one is not None))
        if not held:
            return draft
        own = {item.item_id for items in (draft.items, *draft.examples.values()) for item in items}
        if held - own:
            return (
                f"earlier shards hold {len(held - own)} texts of the general suite, so no checkpoint that was trained "
                "on them could be judged; start another run (trainer.run) with curator.decontaminate on"
            )
        log.info("%d items of the new benchmark are in earlier shards: drafting without them", len(held))
        excluded, left_out = excluded | held, left_out + len(held)
    return (
        f"earlier shards still hold items of draft {DRAFTS_MAX}; publish documents that they have less in common with"
    )
