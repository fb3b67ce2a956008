"""Promotion and rollback by hand.

Owns: the two routes, and what a person may ask for. Does not know: how a flip is written (`jupiter.controller.flips`).
The announcement follows within a second, from the ledger, like that of any flip.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from typing import Annotated

from fastapi import APIRouter, Header
from fastapi import Request as HttpRequest

from jupiter.controller.api.access import acting
from jupiter.controller.api.reading import WithDeps
from jupiter.controller.deps import Deps
from jupiter.controller.flips import Request, already, expect_live, flip_to_checkpoint, flip_to_version
from jupiter.controller.views import PromoteBody, RollbackBody
from jupiter.controller.withdrawals import fed_on_withdrawn
from jupiter.errors import NotFound, Rejected
from jupiter.events import CheckpointSaved
from jupiter.ledger import LedgerEntry, entry_of_version, flips

__all__ = ["router"]

router = APIRouter()

Flip = Callable[[], LedgerEntry]

IdempotencyKey = Annotated[
    str | None,
    Header(alias="Idempotency-Key", max_length=200, description="The same key never flips twice: repeat in safety."),
]


@router.post("/promote")
async def promote(
    body: PromoteBody, deps: WithDeps, http: HttpRequest, idempotency_key: IdempotencyKey = None
) -> LedgerEntry:
    """Flip to a known version, or to a checkpoint as a new version. Returns the ledger's entry."""
    named = [value for value in (body.version, body.evaluation_id, body.checkpoint_id) if value is not None]
    if len(named) != 1:
        raise Rejected(f"name one of version, evaluation_id and checkpoint_id; the request names {len(named)}")
    entries = await asyncio.to_thread(deps.ledger.refresh)
    request = _request(body, "promoted", acting(http, body.actor), idempotency_key)
    if body.version is not None:
        done = already(entries, request, version=body.version)
        if done is None and not body.force:
            await _refuse_unfit(deps, entries, body.version)
        return done or await _flip(
            deps, lambda: flip_to_version(deps.blobs, deps.state.domain, request, version=body.version)
        )
    checkpoint, evaluation_id = _checkpoint(deps, body)
    done = already(entries, request, checkpoint_id=checkpoint.checkpoint_id)
    if done is not None:
        return done
    expect_live(entries, request)
    digest = await _justified(deps, body, evaluation_id, entries)
    request = request.model_copy(update={"evaluation_id": evaluation_id, "evidence_sha256": digest})
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
async def rollback(
    body: RollbackBody, deps: WithDeps, http: HttpRequest, idempotency_key: IdempotencyKey = None
) -> LedgerEntry:
    """Flip back to an earlier version. Returns the ledger's entry."""
    if body.rewind and not body.quarantine:
        raise Rejected("rewind goes back to before what was quarantined: ask for quarantine too")
    known = {entry.version for entry in flips(await asyncio.to_thread(deps.ledger.refresh))}
    if body.version in known and body.version > body.expected_version:
        raise Rejected(
            f"version {body.version} is later than version {body.expected_version}, and a rollback goes back: promote "
            f"version {body.version} instead"
        )
    request = _request(body, "rolled_back", acting(http, body.actor), idempotency_key).model_copy(
        update={"quarantine": body.quarantine, "rewind": body.rewind}
    )
    return await _flip(deps, lambda: flip_to_version(deps.blobs, deps.state.domain, request, version=body.version))


async def _flip(deps: Deps, flip: Flip) -> LedgerEntry:
    async with deps.flipping:
        entry = await asyncio.to_thread(flip)
    deps.following.changed.set()
    return entry


def _request(body: PromoteBody | RollbackBody, action: str, actor: str, idempotency_key: str | None) -> Request:
    forced = isinstance(body, PromoteBody) and body.force
    return Request.model_validate(
        {
            "actor": actor,
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


async def _justified(
    deps: Deps, body: PromoteBody, evaluation_id: str | None, entries: Sequence[LedgerEntry]
) -> str | None:
    """Return the sha256 of the verdict. Raises Rejected when the gate did not agree and nobody forces."""
    stands = await asyncio.to_thread(deps.evidence.verdict, evaluation_id) if evaluation_id else None
    if stands is None:
        if not body.force:
            raise Rejected("the gate has not judged this checkpoint; wait for its evaluation, or force")
        return None
    verdict, digest = stands
    if not body.force:
        _refuse_in_alarm(deps)
        used = next((entry for entry in flips(entries) if entry.evaluation_id == evaluation_id), None)
        if used is not None:
            raise Rejected(
                f"it was promoted before, as version {used.version} (ledger entry {used.sequence}): promote that "
                "version, or force"
            )
        if verdict.decision != "PROMOTE":
            raise Rejected(f"the gate says {verdict.decision}: {'; '.join(verdict.reasons)}; force overrides it")
        if verdict.generator_version != body.expected_version:
            compared, live = verdict.generator_version, body.expected_version
            raise Rejected(f"it was compared with version {compared}, not with {live}; force overrides it")
        await _refuse_withdrawn(deps, verdict.checkpoint_id)
    return digest


async def _refuse_unfit(deps: Deps, entries: Sequence[LedgerEntry], version: int) -> None:
    """What keeps a checkpoint from its promotion keeps a version that was made of it from the next one."""
    _refuse_in_alarm(deps)
    entry = entry_of_version(entries, version)
    if entry is not None and entry.checkpoint_id in deps.state.checkpoints:
        await _refuse_withdrawn(deps, entry.checkpoint_id)


def _refuse_in_alarm(deps: Deps) -> None:
    alarm = deps.state.open_alarm()
    if alarm is not None:
        raise Rejected(f"promotions pause, a diversity alarm is open: {'; '.join(alarm.alarms)}; force overrides it")


async def _refuse_withdrawn(deps: Deps, checkpoint_id: str) -> None:
    refused = await fed_on_withdrawn(deps, deps.state.checkpoints[checkpoint_id])
    if refused is not None:
        raise Rejected(refused)
