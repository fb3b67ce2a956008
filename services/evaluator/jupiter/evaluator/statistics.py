"""Is the candidate better than the generator? Paired differences over clusters of items.

Owns: the clustered bootstrap and the clustered sign-flip test. Pure functions.
Does not know: thresholds or verdicts (the controller's gate).
Items of one document rise and fall together, so documents are resampled, not items
(Miller 2024, arXiv 2411.00640). Within a resample each dimension keeps its weight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from jupiter.evaluator.benchmark import DIMENSION_WEIGHTS
from jupiter.evaluator.composite import composite, item_weights
from jupiter.evaluator.items import Item
from jupiter.records import Record

__all__ = ["Comparison", "DimensionComparison", "paired_comparison"]

RESAMPLES = 10_000
_Floats = npt.NDArray[np.float64]


class DimensionComparison(Record):
    candidate: float
    generator: float
    difference: float
    lower: float
    upper: float


class Comparison(Record):
    """Candidate minus generator on the same items."""

    items: int
    clusters: int
    candidate: float
    generator: float
    difference: float
    """Of the composites."""
    lower: float
    """One-sided bound at `confidence`: with so much probability the true difference is above it."""
    upper: float
    p_value: float
    """One-sided, sign-flip over clusters: chance of such a difference between equally good models."""
    sd: float
    """Standard deviation of the items' differences."""
    wins: int
    losses: int
    ties: int
    confidence: float
    dimensions: Mapping[str, DimensionComparison]


def _cluster_sums(items: Sequence[Item], differences: _Floats) -> tuple[_Floats, _Floats]:
    """Return sums of differences and counts, each of shape (clusters, dimensions)."""
    names = list(DIMENSION_WEIGHTS)
    clusters = {name: row for row, name in enumerate(sorted({item.cluster for item in items}))}
    sums = np.zeros((len(clusters), len(names)))
    counts = np.zeros_like(sums)
    for item, difference in zip(items, differences, strict=True):
        row, column = clusters[item.cluster], names.index(item.dimension)
        sums[row, column] += difference
        counts[row, column] += 1
    return sums, counts


def _bootstrap(sums: _Floats, counts: _Floats, rng: np.random.Generator) -> tuple[_Floats, _Floats]:
    """Return resampled composite differences and, per dimension, resampled mean differences."""
    clusters = sums.shape[0]
    draws = rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=RESAMPLES).astype(float)
    total = draws @ counts
    means = np.divide(draws @ sums, total, out=np.zeros_like(total), where=total > 0)
    weights = np.array(list(DIMENSION_WEIGHTS.values())) * (counts.sum(0) > 0)
    return means @ (weights / weights.sum()), means


def paired_comparison(
    items: Sequence[Item],
    candidate: Mapping[str, float],
    generator: Mapping[str, float],
    *,
    confidence: float,
    seed: int,
) -> Comparison:
    """Compare two models' item scores; both must have scored every item."""
    rng = np.random.default_rng(seed)
    differences = np.array([candidate[item.item_id] - generator[item.item_id] for item in items])
    weighted = np.array(item_weights(items)) * differences
    sums, counts = _cluster_sums(items, differences)
    composites, means = _bootstrap(sums, counts, rng)
    flips = rng.choice(np.array([-1.0, 1.0]), size=(RESAMPLES, sums.shape[0]))
    per_cluster, _ = _cluster_sums(items, weighted)
    flipped = flips @ per_cluster.sum(1)
    observed = float(weighted.sum())
    before, after = composite(items, generator), composite(items, candidate)
    low, high = 1 - confidence, confidence
    dimensions = {
        name: DimensionComparison(
            candidate=after.dimensions[name],
            generator=before.dimensions[name],
            difference=after.dimensions[name] - before.dimensions[name],
            lower=float(np.quantile(means[:, column], low)),
            upper=float(np.quantile(means[:, column], high)),
        )
        for column, name in enumerate(DIMENSION_WEIGHTS)
        if name in after.dimensions
    }
    return Comparison(
        items=len(items),
        clusters=sums.shape[0],
        candidate=after.value,
        generator=before.value,
        difference=observed,
        lower=float(np.quantile(composites, low)),
        upper=float(np.quantile(composites, high)),
        p_value=float((np.count_nonzero(flipped >= observed - 1e-12) + 1) / (RESAMPLES + 1)),
        sd=float(differences.std(ddof=1)) if len(items) > 1 else 0.0,
        wins=int((differences > 0).sum()),
        losses=int((differences < 0).sum()),
        ties=int((differences == 0).sum()),
        confidence=confidence,
        dimensions=dimensions,
    )
