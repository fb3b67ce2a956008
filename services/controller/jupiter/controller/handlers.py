"""What the controller does with the events it consumes as work.

Owns: the handlers. Registering the base is work; what evaluations need is found out anew each round (`verdicts`), so
their events are only noted, and the round is woken.
Does not know: ack and retry (`jupiter.deliveries`).
"""

from __future__ import annotations

import asyncio

from jupiter import manifests
from jupiter.controller.deps import Deps
from jupiter.controller.flips import announcement_of, register_base
from jupiter.errors import NotFound, Rejected
from jupiter.events import BaseModelImported, ConfirmationCompleted, EvaluationCompleted, GeneratorPromoted
from jupiter.service import Subscription

__all__ = ["SUBSCRIPTIONS", "base_model_imported", "evaluation_heard"]

DURABLE = "controller"


async def base_model_imported(event: BaseModelImported, deps: Deps) -> list[GeneratorPromoted]:
    """Register the base model as version 1; a later import changes nothing."""
    try:
        imported = await asyncio.to_thread(manifests.read, deps.blobs, event.manifest_key, sha256=event.manifest_sha256)
    except NotFound as error:
        raise Rejected(f"the base model that was imported is not stored: {error}") from error
    async with deps.flipping:
        entry = await asyncio.to_thread(register_base, deps.blobs, event.domain, imported)
    return [GeneratorPromoted.model_validate(announcement_of(entry))]


async def evaluation_heard(event: EvaluationCompleted | ConfirmationCompleted, deps: Deps) -> None:
    """Note what the evaluator found; the next round goes on with it."""
    deps.state.apply(event)
    deps.following.changed.set()


SUBSCRIPTIONS: tuple[Subscription[Deps], ...] = (
    Subscription(channel="models", durable=DURABLE, handlers={BaseModelImported: base_model_imported}),
    Subscription(
        channel="evaluations",
        durable=DURABLE,
        handlers={EvaluationCompleted: evaluation_heard, ConfirmationCompleted: evaluation_heard},
    ),
)
