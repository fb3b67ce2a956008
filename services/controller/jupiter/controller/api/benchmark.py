"""The benchmarks: which there are, how far the newest is spent, and asking for another one.

Owns: the routes and their views. Does not know: when another one may be asked for (`jupiter.controller.renewals`).
"""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from pydantic import Field

from jupiter.controller.api.access import acting
from jupiter.controller.api.reading import WithDeps
from jupiter.controller.deps import Deps
from jupiter.controller.renewals import Renewals
from jupiter.controller.views import View
from jupiter.errors import NotFound
from jupiter.events import BenchmarkFrozen

__all__ = ["router"]

router = APIRouter()


class GenerationView(View):
    """One frozen benchmark."""

    generation: int
    digest: str
    items: int
    clusters: int
    """Sources that its items are from."""
    openings: int
    """Of its sealed half, against whatever version."""


class RenewalView(View):
    """What became of the newest wish for another benchmark."""

    generation: int
    actor: str
    reason: str
    documents: int
    """Held-out documents of unused sources, when it was asked for."""
    refused: str | None
    """Why the evaluator made none; None while it is at it."""


class BenchmarkView(View):
    """The benchmarks of the domain."""

    generations: tuple[GenerationView, ...]
    """Oldest first; the last one is in use."""
    openings_max: int
    """`self_improvement.sealed_openings_max`: from there on nothing is promoted on a benchmark."""
    fresh_documents: int
    """Held-out documents of sources from which no benchmark has an item."""
    fresh_sources: int
    renewal: RenewalView | None
    """None where none was asked for since the newest was frozen."""


class RenewBody(View):
    """Who wants another benchmark, and why."""

    expected_generation: int = Field(ge=1)
    """The generation you saw in use; another one is answered with 409."""
    actor: str = Field(default="api", min_length=1, max_length=200)
    reason: str = Field(default="by hand", min_length=1, max_length=1_000)


@router.get("/benchmark")
async def benchmark(deps: WithDeps) -> BenchmarkView:
    """Every frozen benchmark, openings spent, and what held-out documents there are for another one."""
    return await _view(deps)


@router.post("/benchmark/renew")
async def renew(body: RenewBody, deps: WithDeps, http: Request) -> BenchmarkView:
    """Ask the evaluator for another benchmark from held-out documents that were never sealed; it may take minutes.

    Openings against a generator stay spent. Refused at once where there are too few new sources.
    """
    await Renewals(deps).ask(acting(http, body.actor), body.reason, generation=body.expected_generation)
    return await _view(deps)


async def _view(deps: Deps) -> BenchmarkView:
    await asyncio.to_thread(deps.ledger.refresh)
    renewals, frozen = Renewals(deps), sorted(deps.state.benchmarks.values(), key=lambda one: one.generation)
    if not frozen:
        raise NotFound("no benchmark is frozen yet: the evaluator says in `jupiter status` what it waits for")
    fresh = await renewals.fresh()
    return BenchmarkView(
        generations=tuple(_generation(one, renewals) for one in frozen),
        openings_max=deps.config.self_improvement.sealed_openings_max,
        fresh_documents=fresh.documents,
        fresh_sources=fresh.sources,
        renewal=_renewal(renewals, frozen[-1].generation + 1),
    )


def _generation(frozen: BenchmarkFrozen, renewals: Renewals) -> GenerationView:
    known = frozen.model_dump(include=set(GenerationView.model_fields))
    return GenerationView(**known, openings=renewals.openings(frozen))


def _renewal(renewals: Renewals, generation: int) -> RenewalView | None:
    newest = renewals.newest(generation)
    if newest is None:
        return None
    refused = renewals.refusal(generation) if renewals.pending(generation) is None else None
    return RenewalView(
        **newest.model_dump(include={"generation", "actor", "reason", "documents"}),
        refused=refused.reason if refused else None,
    )
