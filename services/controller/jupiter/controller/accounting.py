"""Is anything lost? The projection's count, held against what the server still has to deliver.

Owns: the question and its answer. Does not know: why something would be lost; the answer must be 0.

A request is open until its batch or its void is in the stream. If it is open, and no consumer has it before it any
more, somebody acked it and left no trace: that is what losing means here.
"""

from __future__ import annotations

from dataclasses import asdict

from jupiter import keys
from jupiter.controller.deps import Deps
from jupiter.controller.views import AccountingView
from jupiter.events import BatchGenerated, GenerationRequested

__all__ = ["account"]

# The durable names are the services' own, by the project's contract.
GENERATION_DURABLE = "generator"
BATCHES_DURABLE = "curator-batches"


async def account(deps: Deps) -> AccountingView:
    """Return the counts. The streams are read up to date before anything is called lost."""
    missing = await _untraced(deps)
    if missing:
        await deps.following.catch_up(GenerationRequested.channel, BatchGenerated.channel, "shards")
        missing = await _untraced(deps)
    counted = deps.state.accounting()
    return AccountingView.model_validate({**asdict(counted), "lost": counted.lost + missing})


async def _untraced(deps: Deps) -> int:
    """Return how much open work no consumer has before it. What is asked of the server comes first: it acks last."""
    domain, bus = deps.state.domain, deps.bus
    requests = await bus.backlog(keys.subject("generation", domain), durable=GENERATION_DURABLE)
    batches = await bus.backlog(keys.subject("batches", domain), durable=BATCHES_DURABLE)
    counted = deps.state.accounting()
    # A consumer that has not begun yet has no backlog to ask for.
    generating = counted.batches + counted.voided > 0
    curating = counted.shards > 0
    return max(0, counted.open_requests - requests) * generating + max(0, counted.open_batches - batches) * curating
