"""Promotion and rollback by hand.

Owns: the two routes, and what a person may ask for. Does not know: how a flip is written (`jupiter.controller.flips`).
The announcement follows within a second, from the ledger, like that of any flip.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Header

from jupiter.controller.api.reading import WithDeps
from jupiter.controller.deps import Deps
from jupiter.controller.flips import Request, flip_to_checkpoint, flip_to_version
from jupiter.controller.views import PromoteBody, RollbackBody
from jupiter.controller.withdrawals import fed_on_withdrawn
from jupiter.errors import NotFound, Rejected
from jupiter.events import CheckpointSaved
from jupiter.ledger import LedgerEntry

__all__ = ["router"]

router = APIRouter()

Flip = Callable[[], LedgerEntry]

IdempotencyKey = Annotated[
    str | None,
    Header(alias="Idempotency-Key", max_length=200, description="The same key never flips twice: repeat in safety."),
]


@router.post("/promote")
async def promote(body: PromoteBody, deps: WithDeps, idempotency_key: IdempotencyKey = None) -> LedgerEntry:
    """Flip to a known version, or to a checkpoint as a new version. Returns the ledger's entry."""
    named = [value for value in (body.version, body.evaluation_id, body.checkpoint_id) if value is not None]
    if len(named) != 1:
        raise Rejected(f"name one of version, evaluation_id and checkpoint_id; the request names {len(named)}")
    if body.version is not None:
        request = _request(body, "promoted", idempotency_key)
        return await _flip(deps, lambda: flip_to_version(deps.blobs, deps.state.domain, request, version=body.version))
    checkpoint, evaluation_id = _checkpoint(deps, body)
    digest = await _justified(deps, body, evaluation_id)
    request = _request(body, "promoted", idempotency_key).model_copy(
        update={"evaluation_id": evaluation_id, "evidence_sha256": digest}
    )
    return await _flip(
        deps,
        lambda: flip_to_checkpoint(
            deps.blobs,
            deps.state.domain,
            request,
            checkpoint_id=checkpoint.checkpoint_id,
            manifest_key=checkpoint.manifest_key,
            manifest_sha256=checkpoint.manifest_sha256,
        ),
    )


@router.post("/rollback")
async def rollback(body: RollbackBody, deps: WithDeps, idempotency_key: IdempotencyKey = None) -> LedgerEntry:
    """Flip back to an earlier version. Returns the ledger's entry."""
    if body.rewind and not body.quarantine:
        raise Rejected("rewind goes back to before what was quarantined: ask for quarantine too")
    request = _request(body, "rolled_back", idempotency_key).model_copy(
        update={"quarantine": body.quarantine, "rewind": body.rewind}
    )
    return await _flip(deps, lambda: flip_to_version(deps.blobs, deps.state.domain, request, version=body.version))


async def _flip(deps: Deps, flip: Flip) -> LedgerEntry:
    async with deps.flipping:
        entry = await asyncio.to_thread(flip)
    deps.following.changed.set()
    return entry


def _request(body: PromoteBody | RollbackBody, action: str, idempotency_key: str | None) -> Request:
    forced = isinstance(body, PromoteBody) and body.force
    return Request.model_validate(
        {
            "actor": body.actor,
            "reason": f"{body.reason} (forced)" if forced else body.reason,
            "action": action,
            "expected_version": body.expected_version,
            # Without a key of the caller's every request is a new one.
            "idempotency_key": idempotency_key or f"once-{uuid.uuid4()}",
        }
    )


def _checkpoint(deps: Deps, body: PromoteBody) -> tuple[CheckpointSaved, str | None]:
    """Return the checkpoint that was named, and its newest evaluation."""
    evaluations = deps.state.evaluations
    checkpoint_id, evaluation_id = body.checkpoint_id, body.evaluation_id
    if evaluation_id is not None:
        if evaluation_id not in evaluations:
            raise NotFound(f"there is no evaluation {evaluation_id}; GET /v1/evaluations lists them")
        checkpoint_id = evaluations[evaluation_id].checkpoint_id
    else:
        of_it = [event for event in evaluations.values() if event.checkpoint_id == checkpoint_id]
        evaluation_id = of_it[-1].evaluation_id if of_it else None
    if checkpoint_id not in deps.state.checkpoints:
        raise NotFound(f"there is no checkpoint {checkpoint_id}")
    return deps.state.checkpoints[checkpoint_id], evaluation_id


async def _justified(deps: Deps, body: PromoteBody, evaluation_id: str | None) -> str | None:
    """Return the sha256 of the verdict. Raises Rejected when the gate did not agree and nobody forces."""
    stands = await asyncio.to_thread(deps.evidence.verdict, evaluation_id) if evaluation_id else None
    if stands is None:
        if not body.force:
            raise Rejected("the gate has not judged this checkpoint; wait for its evaluation, or force")
        return None
    verdict, digest = stands
    if not body.force:
        alarm = deps.state.open_alarm()
        if alarm is not None:
            raise Rejected(
                f"promotions pause, a diversity alarm is open: {'; '.join(alarm.alarms)}; force overrides it"
            )
        if verdict.decision != "PROMOTE":
            raise Rejected(f"the gate says {verdict.decision}: {'; '.join(verdict.reasons)}; force overrides it")
        if verdict.generator_version != body.expected_version:
            compared, live = verdict.generator_version, body.expected_version
            raise Rejected(f"it was compared with version {compared}, not with {live}; force overrides it")
        refused = await fed_on_withdrawn(deps, deps.state.checkpoints[verdict.checkpoint_id])
        if refused is not None:
            raise Rejected(refused)
    return digest
