"""What the controller does with the events it consumes as work.

Owns: the two handlers. Does not know: ack and retry (`jupiter.deliveries`), nor what a verdict sets off (`promotion`).
"""

from __future__ import annotations

import asyncio

from jupiter import manifests
from jupiter.controller.deps import Deps
from jupiter.controller.flips import announcement_of, register_base
from jupiter.controller.gate import decide
from jupiter.errors import NotFound, Rejected
from jupiter.events import BaseModelImported, EvaluationCompleted, GeneratorPromoted, VerdictReached
from jupiter.service import Subscription

__all__ = ["SUBSCRIPTIONS", "base_model_imported", "evaluation_completed"]

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


async def evaluation_completed(event: EvaluationCompleted, deps: Deps) -> list[VerdictReached]:
    """Let the gate decide, once; what the verdict sets off is derived from it by `promotion`."""
    stands = await asyncio.to_thread(deps.evidence.verdict, event.evaluation_id)
    if stands is None:
        report = await asyncio.to_thread(deps.evidence.report, event)
        ledger = await asyncio.to_thread(deps.ledger.refresh)
        history = await asyncio.to_thread(deps.evidence.history, ledger, tuple(deps.state.verdicts))
        verdict = decide(report, history, deps.config.self_improvement)
        verdict = await asyncio.to_thread(deps.evidence.settle, verdict)
    else:
        verdict = stands[0]
    return [deps.evidence.announcement(verdict)]


SUBSCRIPTIONS: tuple[Subscription[Deps], ...] = (
    Subscription(channel="models", durable=DURABLE, handlers={BaseModelImported: base_model_imported}),
    Subscription(channel="evaluations", durable=DURABLE, handlers={EvaluationCompleted: evaluation_completed}),
)
