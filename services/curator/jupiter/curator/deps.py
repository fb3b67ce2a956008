"""What the curator's handlers work with, and how they come to know what they judge by.

Owns: `Deps`, the one place where knowledge is opened and brought up to date, and what filters see of it.
Does not know: any handler.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from jupiter import generations, withdrawals
from jupiter.config.sections import CuratorSection
from jupiter.curator.filters import Context
from jupiter.curator.filters.base import CodeRunner
from jupiter.curator.history import History
from jupiter.curator.knowledge import Knowledge, catch_up, open_knowledge
from jupiter.curator.metrics import Metrics
from jupiter.curator.pipeline import candidates_of
from jupiter.errors import IntegrityError, NotFound, Retry
from jupiter.records import Sample
from jupiter.service import Runtime
from jupiter.withdrawals import Withdrawn

__all__ = ["Deps", "context_of", "still_whole", "up_to_date"]

log = logging.getLogger(__name__)

BLOCKED_S = 15.0
"""Before a curator that cannot read an earlier shard tries again."""


@dataclass(kw_only=True)
class Deps:
    """What the handlers work with. `knowledge` is read when the first batch comes."""

    runtime: Runtime
    settings: CuratorSection
    run_code: CodeRunner
    metrics: Metrics
    knowledge: Knowledge | None = None
    knowing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while knowledge is brought up to date and judged by: several subscriptions do so, in threads."""
    documents_handled: int = 0
    """Since this process started."""


async def up_to_date(deps: Deps) -> Knowledge:
    """Return what the curator knows, with every document and shard published until now. Raises Retry to wait.

    The caller holds `deps.knowing` until it has judged: nothing else may change what it looks at meanwhile.
    """
    runtime = deps.runtime
    known = deps.knowledge.withdrawn if deps.knowledge else Withdrawn()
    if deps.knowledge is not None and not await asyncio.to_thread(_whole, deps.knowledge):
        log.warning("the shared index in Redis was lost or restarted: it is filled again from the shards' signatures")
        deps.knowledge = None
    if deps.knowledge is not None and not await asyncio.to_thread(_in_use, deps, deps.knowledge):
        log.warning("another benchmark was frozen: documents and shards are read again, to keep its texts out")
        deps.knowledge = None
    news = (await withdrawals.read(runtime.bus, runtime.domain, after=known.sequence)).withdrawn
    if deps.knowledge is None or news:
        if deps.knowledge is not None:
            log.warning("data was withdrawn: documents and shards are read again without it")
        deps.knowledge = None
        try:
            deps.knowledge = await open_knowledge(
                runtime.blobs, domain=runtime.domain, settings=deps.settings, withdrawn=known.plus(news)
            )
        except Retry as wait:
            await runtime.status("waiting", detail=str(wait))
            raise

    async def progress(done: int, total: int, unit: str) -> None:
        await runtime.status("reading", detail=f"reading {unit}", done=done, total=total, unit=unit)

    try:
        await catch_up(deps.knowledge, bus=runtime.bus, blobs=runtime.blobs, domain=runtime.domain, progress=progress)
    except (IntegrityError, NotFound) as error:
        # No fault of this batch: without the earlier shards duplicates and repeats cannot be counted. Wait for help.
        reason = f"an earlier shard cannot be read, so nothing can be compared with it: {error}; restore the object"
        await runtime.status("blocked", detail=reason)
        raise Retry(reason, delay_s=BLOCKED_S, counts=False) from error
    return deps.knowledge


async def still_whole(deps: Deps, knowledge: Knowledge) -> None:
    """Refuse what was judged by an index that lost something meanwhile, for duplicates passed unseen, or while another
    benchmark was frozen, for its texts did. Raises Retry."""
    if not await asyncio.to_thread(_whole, knowledge):
        deps.knowledge = None
        raise Retry("the shared index was lost while the batch was judged; judging again", delay_s=0.1, counts=False)
    if not await asyncio.to_thread(_in_use, deps, knowledge):
        raise Retry("another benchmark was frozen while the batch was judged; judging again", delay_s=0.1, counts=False)


def _whole(knowledge: Knowledge) -> bool:
    return knowledge.history.index.intact


def _in_use(deps: Deps, knowledge: Knowledge) -> bool:
    return generations.is_newest(deps.runtime.blobs, deps.runtime.domain, knowledge.generation)


def context_of(
    deps: Deps, knowledge: Knowledge, samples: Sequence[Sample], *, history: History | None = None
) -> Context:
    """Return what the filters of a batch see; `history` where it is not to be all that is known. Blocks: sketches."""
    return Context(
        settings=deps.settings,
        history=knowledge.history if history is None else history,
        corpus=knowledge.corpus,
        forbidden=knowledge.forbidden,
        run_code=deps.run_code,
        batch=candidates_of(samples, knowledge.corpus),
    )
