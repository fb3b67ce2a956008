"""The ceiling of this cycle: the plateau, asked about the live generator with what the streams measured.

Owns: gathering the figures that `plateau` and its lifts are read off. Does not know: when there is a plateau, nor what
would lift it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from jupiter.config import ClusterConfig
from jupiter.controller.plateau import Facts, plateau, points_of
from jupiter.controller.projection import Projection
from jupiter.ledger import LedgerEntry, current, openings

__all__ = ["facts_of", "plateau_lines"]


def plateau_lines(state: Projection, ledger: Sequence[LedgerEntry], config: ClusterConfig) -> tuple[str, ...]:
    """Return the finding and what would lift it, a line each; empty when there is none."""
    live = current(ledger)
    if live is None or state.benchmark is None:
        return ()
    sound = [
        event
        for evaluation_id, event in state.evaluations.items()
        if evaluation_id not in state.verdicts or state.verdicts[evaluation_id].decision != "INVALID"
    ]
    digest = state.benchmark.digest
    points = points_of(sound, generator_version=live.version, benchmark_digest=digest)
    facts = facts_of(state, live, config, sealed_openings=len(openings(ledger, benchmark_digest=digest)))
    found = plateau(points, facts, config.self_improvement)
    return found.lines if found else ()


def facts_of(state: Projection, live: LedgerEntry, config: ClusterConfig, *, sealed_openings: int) -> Facts:
    """Return what was measured while the live version generated."""
    shards = [shard for shard in state.shards.values() if shard.generator_version == live.version]
    dropped: Counter[str] = Counter()
    for shard in shards:
        dropped.update(shard.dropped)
    figures = _curator_figures(state)
    real = figures.get("real_samples")
    checkpoints = list(state.checkpoints.values())
    return Facts(
        training_documents=len(state.training_documents()),
        real_uses_left=figures.get("real_uses_left"),
        real_uses_allowed=None if real is None else real * config.curator.real_repeats_max,
        candidates=sum(shard.candidates for shard in shards),
        accepted=sum(shard.accepted for shard in shards),
        dropped=dropped,
        student_is_base=config.trainer.student == "base",
        losses=tuple(saved.loss for saved in checkpoints if saved.run == checkpoints[-1].run),
        benchmark_items=state.benchmark.items if state.benchmark else None,
        sealed_openings=sealed_openings,
    )


def _curator_figures(state: Projection) -> Mapping[str, Any]:
    """Return the newest figures of a curator that has counted; while it judges a batch it says only how far it is."""
    said = (status.figures for status in state.statuses_of("curator"))
    return next((figures for figures in said if "real_uses_left" in figures), {})
