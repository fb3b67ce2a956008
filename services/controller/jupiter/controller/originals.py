"""The reports that a verdict's inputs were put together from, read again where their makers stored them.

Owns: finding them by the events that name their digests. Whoever rewrites `inputs.json` and `verdict.json` to agree
with each other cannot rewrite these: they lie under digests that the streams hold.
Does not know: what is made of a difference (`jupiter replay`). Synchronous; call through `asyncio.to_thread`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from jupiter.controller.deps import Deps
from jupiter.controller.views import OriginalsView
from jupiter.errors import Rejected
from jupiter.ledger import opening_of
from jupiter.reports import Confirmation, EvaluationReport, Shadow

__all__ = ["originals"]

T = TypeVar("T")


def originals(deps: Deps, evaluation_id: str) -> OriginalsView:
    """Return report, confirmation and shadow judgement of an evaluation as they stand, and why one cannot be read."""
    faults: list[str] = []
    report = _read(faults, lambda: deps.evidence.report(deps.state.evaluations[evaluation_id]))
    return OriginalsView(
        report=report,
        confirmation=_read(faults, lambda: _confirmation(deps, report)) if report else None,
        shadow=_read(faults, lambda: _shadow(deps, evaluation_id)),
        faults=tuple(faults),
    )


def _confirmation(deps: Deps, report: EvaluationReport) -> Confirmation | None:
    opening = opening_of(deps.ledger.entries, report.evaluation_id)
    told = deps.state.confirmations.get((report.evaluation_id, opening.opening or 0)) if opening else None
    return deps.evidence.confirmation(told, report, opening) if told and opening else None


def _shadow(deps: Deps, evaluation_id: str) -> Shadow | None:
    """A batch that a generator could not make was judged by nobody: the controller itself says so in the inputs."""
    state = deps.state
    request, judged = state.shadow_requests.get(evaluation_id), state.shadows.get(evaluation_id)
    if request is None or judged is None:
        return None
    return deps.evidence.shadow(judged, request, state.shadow_batches.get(evaluation_id))


def _read(faults: list[str], read: Callable[[], T | None]) -> T | None:
    try:
        return read()
    except Rejected as error:
        faults.append(str(error))
        return None
