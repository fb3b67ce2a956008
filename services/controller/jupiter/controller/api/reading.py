"""The routes that only read.

Owns: their paths and parameters. Does not know: how the answers are made (`progress`, `samples`).
"""

from __future__ import annotations

import asyncio
import base64
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request

from jupiter.controller.accounting import account
from jupiter.controller.ceiling import plateau_lines
from jupiter.controller.deps import Deps
from jupiter.controller.gate import Verdict
from jupiter.controller.originals import originals
from jupiter.controller.progress import evaluation_views, status_view, version_views
from jupiter.controller.promotion import wanted
from jupiter.controller.samples import newest_samples
from jupiter.controller.views import (
    DiversityView,
    EvaluationDetail,
    EvaluationView,
    HistoryView,
    RecordView,
    SampleView,
    StatusView,
    VersionView,
)
from jupiter.errors import NotFound, Rejected
from jupiter.ledger import current, flips, live_at, read_ledger
from jupiter.reports import EvaluationReport

__all__ = ["WithDeps", "router"]

router = APIRouter()


def _deps(request: Request) -> Deps:
    deps = request.app.state.deps
    assert isinstance(deps, Deps)  # noqa: S101 — the app was built without deps only to describe it
    return deps


WithDeps = Annotated[Deps, Depends(_deps)]


@router.get("/status")
async def status(deps: WithDeps) -> StatusView:
    """Where the cycle is: stages with progress and ETA, versions, what it waits for, and that nothing is lost."""
    ledger = await asyncio.to_thread(deps.ledger.refresh)
    pending = [verdict.evaluation_id for verdict, _ in await wanted(deps)]
    refused = {}
    acted_on = {entry.evaluation_id for entry in flips(ledger)}
    for evaluation_id, verdict in deps.state.verdicts.items():
        if verdict.decision == "PROMOTE" and evaluation_id not in acted_on:
            refusal = await asyncio.to_thread(deps.evidence.refusal, evaluation_id)
            if refusal:
                refused[evaluation_id] = refusal.reason
    improvement = deps.config.self_improvement
    return status_view(
        deps.state,
        ledger,
        accounting=await account(deps),
        mode=improvement.mode,
        eval_every_steps=improvement.eval_every_steps,
        sealed_openings_max=improvement.sealed_openings_max,
        waits_for=deps.waits_for,
        pending_approval=tuple(pending) if improvement.mode == "approve" else (),
        refused=refused,
        dead_letters=await deps.bus.dead_letter_count(),
        stages=deps.stages,
        diversity=deps.diversity,
        plateau=plateau_lines(deps.state, ledger, deps.config),
    )


@router.get("/versions")
async def versions(deps: WithDeps) -> list[VersionView]:
    """Every generator version, by number."""
    return version_views(deps.state, await asyncio.to_thread(deps.ledger.refresh))


@router.get("/history")
async def history(
    deps: WithDeps,
    live_at_time: Annotated[datetime | None, Query(alias="live_at", description="RFC 3339 with an offset")] = None,
) -> HistoryView:
    """The ledger, verified from the first entry, and what is live now or was at `live_at`."""
    entries = await asyncio.to_thread(read_ledger, deps.blobs, deps.runtime.domain)
    if live_at_time is None:
        return HistoryView(entries=entries, live=current(entries))
    if live_at_time.tzinfo is None:
        raise Rejected(f"live_at {live_at_time.isoformat()} has no time zone: add Z or an offset")
    return HistoryView(entries=entries, live=live_at(entries, live_at_time))


@router.get("/evaluations")
async def evaluations(deps: WithDeps) -> list[EvaluationView]:
    """Every evaluation, oldest first."""
    return await _evaluations(deps)


@router.get("/evaluations/{evaluation_id}")
async def evaluation(evaluation_id: str, deps: WithDeps) -> EvaluationDetail:
    """One evaluation with its whole report and every check of the verdict; a unique prefix of the id will do."""
    view = await _evaluation(deps, evaluation_id)
    verdict, unreadable = await asyncio.to_thread(_verdict, deps, view.evaluation_id)
    refusal = await asyncio.to_thread(deps.evidence.refusal, view.evaluation_id)
    return EvaluationDetail(
        evaluation=view,
        verdict=verdict,
        refusal=refusal.reason if refusal else unreadable,
        report=await asyncio.to_thread(_report, deps, view.evaluation_id),
    )


@router.get("/evaluations/{evaluation_id}/record")
async def record(evaluation_id: str, deps: WithDeps) -> RecordView:
    """What the verdict was made from and the verdict, byte for byte as stored: whoever decides again gets the same."""
    view = await _evaluation(deps, evaluation_id)
    try:
        inputs, verdict = await asyncio.to_thread(deps.evidence.stored, view.evaluation_id)
    except NotFound as error:
        raise NotFound(
            f"evaluation {view.evaluation_id} is not settled yet: {view.stage_detail or view.stage}"
        ) from error
    told = deps.state.verdicts.get(view.evaluation_id)
    return RecordView(
        evaluation_id=view.evaluation_id,
        inputs_base64=base64.b64encode(inputs).decode() if inputs is not None else None,
        verdict_base64=base64.b64encode(verdict).decode(),
        verdict_sha256=told.verdict_sha256 if told else None,
        originals=await asyncio.to_thread(originals, deps, view.evaluation_id),
    )


async def _evaluations(deps: Deps) -> list[EvaluationView]:
    return evaluation_views(deps.state, await asyncio.to_thread(deps.ledger.refresh), deps.stages)


async def _evaluation(deps: Deps, prefix: str) -> EvaluationView:
    found = [view for view in await _evaluations(deps) if view.evaluation_id.startswith(prefix)]
    if len(found) != 1:
        what = "several evaluations begin" if found else "no evaluation begins"
        raise NotFound(f"{what} with {prefix}; GET /v1/evaluations lists them")
    return found[0]


def _verdict(deps: Deps, evaluation_id: str) -> tuple[Verdict | None, str | None]:
    """Return the verdict, None where there is none yet, or why it cannot be read."""
    try:
        stands = deps.evidence.verdict(evaluation_id)
    except Rejected as error:
        return None, str(error)
    return (stands[0] if stands else None), None


def _report(deps: Deps, evaluation_id: str) -> EvaluationReport | None:
    """Return the report as it was decided on, or as it came; None where it cannot be believed."""
    try:
        inputs = deps.evidence.inputs(evaluation_id)
        return inputs.report if inputs else deps.evidence.report(deps.state.evaluations[evaluation_id])
    except Rejected:
        return None


@router.get("/diversity")
async def diversity(
    deps: WithDeps,
    version: Annotated[int | None, Query(ge=1, description="Only shards of this generator version")] = None,
    limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
) -> list[DiversityView]:
    """How varied the newest shards are, oldest first, each beside the real data's own figures."""
    measured = [shard for shard in deps.state.shards.values() if shard.diversity]
    return [
        DiversityView(
            shard_id=shard.shard_id,
            batch_id=shard.batch_id,
            generator_version=shard.generator_version,
            figures=shard.diversity,
        )
        for shard in measured
        if version in (None, shard.generator_version)
    ][-limit:]


@router.get("/samples")
async def samples(
    deps: WithDeps,
    accepted: Annotated[bool | None, Query(description="Only accepted, only rejected, or both")] = None,
    origin: Annotated[str | None, Query(pattern="^(synthetic|real)$")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 10,
) -> list[SampleView]:
    """The newest samples, accepted first, the rejected with the reason; up to `limit` of each sort."""
    shards = list(deps.state.shards.values())
    return await asyncio.to_thread(newest_samples, deps.blobs, shards, accepted=accepted, origin=origin, limit=limit)
