"""How far the cycle is: the answers of the read-only part of the API.

Owns: turning the projection, the ledger and statuses into views. Does not know: HTTP.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from jupiter.controller.deps import Stage
from jupiter.controller.diversity import Figure
from jupiter.controller.projection import Projection
from jupiter.controller.views import (
    AccountingView,
    AlarmView,
    ConfirmationView,
    EvaluationView,
    GeneratorView,
    NextEvaluation,
    NotEvaluatedView,
    SealedHalfView,
    ShadowView,
    StageView,
    StatusView,
    VersionView,
)
from jupiter.events import EvaluationCompleted, ServiceStatus
from jupiter.ledger import LedgerEntry, current, flips, opening_of, openings

__all__ = ["evaluation_views", "status_view", "version_views"]

_SERVICE_STAGES = {"generator": "generation", "curator": "curation", "trainer": "training", "evaluator": "evaluation"}


def status_view(
    state: Projection,
    ledger: Sequence[LedgerEntry],
    *,
    accounting: AccountingView,
    mode: str,
    eval_every_steps: int,
    sealed_openings_max: int,
    waits_for: tuple[str, ...],
    pending_approval: tuple[str, ...],
    refused: Mapping[str, str],
    dead_letters: int,
    stages: Mapping[str, Stage],
    plateau: tuple[str, ...],
    diversity: tuple[Figure, ...],
) -> StatusView:
    """Return the whole picture."""
    live = current(ledger)
    evaluations = evaluation_views(state, ledger, stages)
    dropped: Counter[str] = Counter()
    for shard in state.shards.values():
        dropped.update(shard.dropped)
    by_version = Counter(batch.generator_version for batch in state.batches.values())
    return StatusView(
        domain=state.domain,
        time=datetime.now(UTC).isoformat(timespec="milliseconds"),
        mode=mode,
        generator=_generator(state, ledger),
        stages=_stages(state),
        next_evaluation=_next_evaluation(state, eval_every_steps),
        waits_for=waits_for,
        accounting=accounting,
        documents_training=len(state.training_documents()),
        documents_held_out=len(state.held_out_documents()),
        samples_generated=sum(batch.samples for batch in state.batches.values()),
        samples_accepted=sum(shard.accepted for shard in state.shards.values()),
        tokens=sum(shard.tokens for shard in state.shards.values()),
        real_tokens=sum(shard.real_tokens for shard in state.shards.values()),
        dropped=dict(dropped.most_common()),
        batches_by_version=dict(sorted(by_version.items())),
        shards_ahead=state.shards_ahead(),
        evaluations=len(evaluations),
        last_evaluation=evaluations[-1] if evaluations else None,
        not_evaluated=_not_evaluated(state),
        pending_approval=pending_approval,
        refused=refused,
        dead_letters=dead_letters,
        openings=len(openings(ledger, version=live.version)) if live else 0,
        sealed_half=_sealed_half(state, ledger, sealed_openings_max),
        diversity_alarm=_alarm(state),
        diversity=diversity,
        plateau=plateau,
    )


def evaluation_views(
    state: Projection, ledger: Sequence[LedgerEntry], stages: Mapping[str, Stage]
) -> list[EvaluationView]:
    """Return every evaluation, oldest first."""
    views = []
    for epoch, event in enumerate(state.evaluations.values(), start=1):
        verdict = state.verdicts.get(event.evaluation_id)
        shared = event.model_dump(include=set(EvaluationView.model_fields))
        decision, reasons = (verdict.decision, verdict.reasons) if verdict else (None, ())
        stage = stages.get(event.evaluation_id, Stage("deciding", ""))
        views.append(
            EvaluationView(
                **shared,
                epoch=epoch,
                decision=decision,
                reasons=reasons,
                stage="settled" if verdict else stage.name,
                stage_detail="" if verdict else stage.detail,
                confirmation=_confirmation(state, ledger, event),
                shadow=_shadow(state, event),
            )
        )
    return views


def _confirmation(
    state: Projection, ledger: Sequence[LedgerEntry], event: EvaluationCompleted
) -> ConfirmationView | None:
    """Only what answers the opening that the ledger has counts."""
    opening = opening_of(ledger, event.evaluation_id)
    found = state.confirmations.get((event.evaluation_id, opening.opening or 0)) if opening else None
    return ConfirmationView(**found.model_dump(include=set(ConfirmationView.model_fields))) if found else None


def _shadow(state: Projection, event: EvaluationCompleted) -> ShadowView | None:
    found = state.shadows.get(event.evaluation_id)
    return ShadowView(**found.model_dump(include=set(ShadowView.model_fields))) if found else None


def _alarm(state: Projection) -> AlarmView | None:
    alarm = state.open_alarm()
    return AlarmView(**alarm.model_dump(include=set(AlarmView.model_fields))) if alarm else None


def _not_evaluated(state: Projection) -> tuple[NotEvaluatedView, ...]:
    return tuple(
        NotEvaluatedView(
            checkpoint_id=checkpoint.checkpoint_id,
            run=checkpoint.run,
            step=checkpoint.step,
            evaluation_id=verdict.evaluation_id,
            reasons=verdict.reasons,
        )
        for verdict in state.not_evaluated()
        if (checkpoint := state.checkpoints.get(verdict.checkpoint_id or "")) is not None
    )


def _sealed_half(state: Projection, ledger: Sequence[LedgerEntry], most: int) -> SealedHalfView | None:
    if state.benchmark is None:
        return None
    used = openings(ledger, benchmark_digest=state.benchmark.digest)
    return SealedHalfView(openings=len(used), openings_max=most)


def version_views(state: Projection, ledger: Sequence[LedgerEntry]) -> list[VersionView]:
    """Return every version the ledger knows, by number."""
    live = current(ledger)
    firsts: dict[int, LedgerEntry] = {}
    for entry in flips(ledger):
        firsts.setdefault(entry.version, entry)
    views = []
    for version, entry in sorted(firsts.items()):
        checkpoint = state.checkpoints.get(entry.checkpoint_id or "")
        views.append(
            VersionView(
                version=version,
                live=live is not None and live.version == version,
                checkpoint_id=entry.checkpoint_id,
                evaluation_id=entry.evaluation_id,
                step=checkpoint.step if checkpoint else None,
                manifest_key=entry.manifest_key,
                manifest_sha256=entry.manifest_sha256,
                first_live=entry.time,
                served_by=_served_by(state, version),
            )
        )
    return views


def _generator(state: Projection, ledger: Sequence[LedgerEntry]) -> GeneratorView | None:
    live = current(ledger)
    if live is None:
        return None
    return GeneratorView(
        version=live.version,
        previous_version=live.previous_version,
        ledger_sequence=live.sequence,
        action=live.action,
        since=live.time,
        served_by=_served_by(state, live.version),
        instances=dict(sorted(state.serving.items())),
    )


def _served_by(state: Projection, version: int) -> tuple[str, ...]:
    return tuple(sorted(instance for instance, served in state.serving.items() if served == version))


def _stages(state: Projection) -> tuple[StageView, ...]:
    training, held_out = len(state.training_documents()), len(state.held_out_documents())
    benchmark = state.benchmark
    first = [
        StageView(
            name="documents",
            state="accepted" if state.documents else "waiting",
            detail=f"{training} to train on, {held_out} held out",
            done=len(state.documents),
            unit="documents",
        ),
        StageView(
            name="benchmark",
            state="frozen" if benchmark else "waiting",
            detail=f"{benchmark.items} items from {benchmark.clusters} sources, {benchmark.digest[:12]}"
            if benchmark
            else "",
            done=benchmark.items if benchmark else None,
            unit="items",
        ),
    ]
    services = [_service_stage(name, state.statuses_of(service)) for service, name in _SERVICE_STAGES.items()]
    return (*first, *services)


def _service_stage(name: str, statuses: Sequence[ServiceStatus]) -> StageView:
    """The newest status speaks for the stage; all instances are named."""
    if not statuses:
        return StageView.model_validate({"name": name, "state": "absent"})
    newest = statuses[0]
    return StageView.model_validate(
        {
            "name": name,
            "state": newest.stage,
            "detail": newest.detail,
            "done": newest.done,
            "total": newest.total,
            "unit": newest.unit,
            "rate_per_s": newest.rate_per_s,
            "eta_s": _eta_s(newest.done, newest.total, newest.rate_per_s),
            "instances": tuple(status.instance for status in statuses),
            "updated_at": newest.time,
            "figures": newest.figures,
        }
    )


def _next_evaluation(state: Projection, every: int) -> NextEvaluation | None:
    """The next multiple of `eval_every_steps`; None before the trainer has said anything."""
    statuses = state.statuses_of("trainer")
    step = state.trained_step()
    if not statuses and not step:
        return None
    rate = statuses[0].rate_per_s if statuses and statuses[0].unit == "steps" else None
    target = (step // every + 1) * every
    return NextEvaluation(step=target, current_step=step, eta_s=_eta_s(step, target, rate))


def _eta_s(done: float | None, total: float | None, rate_per_s: float | None) -> float | None:
    if done is None or total is None or not rate_per_s:
        return None
    return max(0.0, (total - done) / rate_per_s)
