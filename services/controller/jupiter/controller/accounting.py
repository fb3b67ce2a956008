"""Is anything lost? The projection's count, held against what the server still has to deliver.

Owns: the question and its answer. Does not know: how it is counted (`jupiter.lost_work`), nor why something would be
lost; the answer must be 0.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict

from jupiter import keys
from jupiter.bus import DeadLetter, Outstanding
from jupiter.controller.deps import Deps
from jupiter.controller.projection import Projection
from jupiter.controller.views import AccountingView
from jupiter.events import BatchGenerated, GenerationRequested, ShardCurated
from jupiter.lost_work import BATCHES_DURABLE, GENERATION_DURABLE, Work, buried, dead_letters, how_many_lost

__all__ = ["account"]


async def account(deps: Deps) -> AccountingView:
    """Return the counts. Streams and dead letters are read up to date before anything is called lost."""
    state, bus = deps.state, deps.bus
    # What is asked of the server comes first: it acks last.
    generator = await bus.outstanding(keys.subject("generation", state.domain), durable=GENERATION_DURABLE)
    curator = await bus.outstanding(keys.subject("batches", state.domain), durable=BATCHES_DURABLE)
    missing = _untraced(state, generator, curator)
    if missing:
        await deps.following.catch_up(GenerationRequested.channel, BatchGenerated.channel, ShardCurated.channel)
        letters = await dead_letters(bus, after=deps.letters_seen)
        missing = _untraced(state, generator, curator, letters)
    counted = state.accounting()
    return AccountingView.model_validate({**asdict(counted), "lost": counted.lost + missing})


def _untraced(
    state: Projection, generator: Outstanding, curator: Outstanding, letters: Collection[DeadLetter] = ()
) -> int:
    """Return how many requests and batches were acked without a trace. `letters`: those that nobody voided yet."""
    generation, batches = keys.subject("generation", state.domain), keys.subject("batches", state.domain)
    making = Work(asked=state.request_places, buried=buried(letters, generation), place=generator)
    curating = Work(asked=state.batch_places, others=state.void_places, buried=buried(letters, batches), place=curator)
    return how_many_lost(making, accounted={*state.voided, *state.batches}) + how_many_lost(
        curating, accounted={*state.voided, *state.shards}
    )
