"""Paired statistics over clusters of items.

Owns: composite scores, the cluster bootstrap and the cluster sign-flip test (Miller 2024, arXiv 2411.00640:
documents cluster, so documents are resampled and not items). Pure functions of the items and a seed: draws depend on
the seed and on the number of clusters only, so raising a candidate's score never lowers a bound nor raises a p.
Does not know: what the figures decide (the gate), nor from which half of a benchmark the items come.

A verdict must come out bit for bit the same on any machine and for years. So draws are made of PCG64's raw bits, whose
stream numpy promises never to change (that of its `Generator`'s methods it does not), bounds are values of the sorted
draws and no interpolation, and floats are rounded to DIGITS, far above what another order of summation changes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from jupiter.reports import DIMENSION_WEIGHTS, DIMENSIONS, ItemResult, Scores

__all__ = [
    "BOOTSTRAPS",
    "FLIPS",
    "Bootstrapped",
    "Flipped",
    "Summary",
    "Table",
    "bootstrap",
    "bootstrap_ratio",
    "detectable",
    "flip_signs",
    "scores",
    "summarise",
    "tabulate",
]

Floats = npt.NDArray[np.float64]

BOOTSTRAPS = 2_000
"""Draws of a bootstrap. Resampling error of a 90 % bound: about .7 points of its level. Costs two milliseconds."""
FLIPS = 4_000
"""Sign assignments of a test. A p that is estimated from any number of them is valid; few only lose power."""
FLIPS_PER_BLOCK = 20_000
"""Assignments held in memory at once: 16 MB with 100 clusters."""
DIGITS = 9

_COLUMN = {dimension: column for column, dimension in enumerate(DIMENSIONS)}
_WEIGHTS = np.array([DIMENSION_WEIGHTS[dimension] for dimension in DIMENSIONS])
# A flipped sum of nothing but zeros and equal scores is 0 in truth; this is far above its rounding error.
_NOTHING = 1e-12
# So that two uses of one seed never share their draws.
_FLIP_STREAM, _BOOTSTRAP_STREAM = 1, 2


@dataclass(frozen=True)
class Table:
    """Items summed up by cluster (rows, in order of their names) and dimension (columns)."""

    candidate: Floats
    generator: Floats
    counts: Floats

    @property
    def clusters(self) -> int:
        return len(self.counts)

    @property
    def whole(self) -> bool:
        """Whether every dimension has an item."""
        return bool(self.counts.sum(axis=0).all())

    def scores(self) -> tuple[Scores, Scores]:
        """Return (candidate, generator). Raises ValueError when a dimension has no item."""
        counts = self.counts.sum(axis=0)
        for dimension, count in zip(DIMENSIONS, counts, strict=True):
            if not count:
                raise ValueError(f"no item measures {dimension}; a composite needs all of {', '.join(DIMENSIONS)}")
        return _weighted(self.candidate.sum(axis=0) / counts), _weighted(self.generator.sum(axis=0) / counts)

    def differences(self) -> Floats:
        """Return candidate − generator by dimension."""
        result: Floats = (self.candidate - self.generator).sum(axis=0) / self.counts.sum(axis=0)
        return result

    def difference(self) -> float:
        """Return candidate − generator of the composite."""
        return _rounded(self.differences() @ _WEIGHTS)

    def pull(self) -> Floats:
        """Return what each cluster adds to the composite's difference."""
        result: Floats = ((self.candidate - self.generator) / self.counts.sum(axis=0)) @ _WEIGHTS
        return result

    def standard_error(self) -> float:
        """Return the cluster-robust standard error of the composite's difference; infinite for one cluster."""
        if self.clusters < 2:
            return math.inf
        sums, counts = self.candidate - self.generator, self.counts.sum(axis=0)
        # What each cluster moves the composite by, to first order.
        pull = ((sums - self.counts * (sums.sum(axis=0) / counts)) / counts) @ _WEIGHTS
        return _rounded(math.sqrt(self.clusters / (self.clusters - 1) * float(pull @ pull)))


@dataclass(frozen=True)
class Flipped:
    """The cluster sign-flip test, both ways. The observed signs count as one assignment, so no p is 0."""

    better: float
    """p of "no better than the generator": share of the assignments that do as well as what was observed."""
    worse: float
    """p of "no worse than the generator"."""


@dataclass(frozen=True)
class Bootstrapped:
    """Draws of a figure, sorted."""

    draws: Floats

    def lower(self, level: float) -> float:
        """Return the one-sided lower bound, e.g. at .90."""
        return _rounded(self.draws[math.floor((1 - level) * len(self.draws))])

    def upper(self, level: float) -> float:
        """Return the one-sided upper bound."""
        return _rounded(self.draws[len(self.draws) - 1 - math.floor((1 - level) * len(self.draws))])


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The figures of a report or a confirmation."""

    candidate: Scores
    generator: Scores
    difference: float
    ci_low: float
    ci_high: float


def tabulate(items: Sequence[ItemResult]) -> Table:
    """Sum up the items. Their order does not matter."""
    ordered = sorted(items, key=attrgetter("item_id"))
    names = [item.cluster for item in ordered]
    row = {cluster: index * len(DIMENSIONS) for index, cluster in enumerate(sorted(set(names)))}
    places = np.array([row[item.cluster] + _COLUMN[item.dimension] for item in ordered])

    def summed(weights: list[float] | None) -> Floats:
        cells = np.bincount(places, weights=weights, minlength=len(row) * len(DIMENSIONS))
        return cells.reshape(len(row), len(DIMENSIONS)).astype(np.float64)

    return Table(
        candidate=summed([item.candidate for item in ordered]),
        generator=summed([item.generator for item in ordered]),
        counts=summed(None),
    )


def scores(items: Sequence[ItemResult]) -> tuple[Scores, Scores]:
    """Return (candidate, generator) over exactly these items. Raises ValueError when a dimension has none."""
    return tabulate(items).scores()


def summarise(items: Sequence[ItemResult], *, seed: int) -> Summary:
    """Return every figure over exactly these items: scores of both, their difference, its two-sided 95 % interval.

    Raises ValueError when a dimension has no item.
    """
    table = tabulate(items)
    candidate, generator = table.scores()
    composite = bootstrap(table, seed=seed)["composite"]
    return Summary(
        candidate=candidate,
        generator=generator,
        difference=candidate.composite - generator.composite,
        ci_low=composite.lower(0.975),
        ci_high=composite.upper(0.975),
    )


def flip_signs(table: Table, *, seed: int, flips: int = FLIPS) -> Flipped:
    """Exchange the two models in random clusters: how often does chance do as well, or as badly, as was observed?"""
    pull = table.pull()
    generator = np.random.PCG64(np.random.SeedSequence([seed, _FLIP_STREAM]))
    better = worse = 0
    for start in range(0, flips, FLIPS_PER_BLOCK):
        rows = min(FLIPS_PER_BLOCK, flips - start)
        raw = generator.random_raw(math.ceil(rows * len(pull) / 64)).astype("<u8")
        chosen = np.unpackbits(raw.view(np.uint8), count=rows * len(pull)).reshape(rows, len(pull))
        # The sum with some clusters flipped is as large as the observed one if what was flipped adds up to no more
        # than nothing.
        moved = chosen.astype(np.float64) @ pull
        better += int(np.count_nonzero(moved <= _NOTHING))
        worse += int(np.count_nonzero(moved >= -_NOTHING))
    return Flipped(better=(1 + better) / (1 + flips), worse=(1 + worse) / (1 + flips))


def bootstrap(table: Table, *, seed: int) -> Mapping[str, Bootstrapped]:
    """Return the draws of the difference: of "composite", and of each dimension."""
    drawn = _draws(table.clusters, seed)
    counts = drawn @ table.counts
    # A draw that holds no item of some dimension says nothing about the composite, so it is left out.
    kept = counts.min(axis=1) > 0
    means = (drawn @ (table.candidate - table.generator))[kept] / counts[kept]
    figures = {"composite": means @ _WEIGHTS} | {name: means[:, column] for name, column in _COLUMN.items()}
    return {name: Bootstrapped(np.sort(values)) for name, values in figures.items()}


def bootstrap_ratio(above: Sequence[float], below: Sequence[float], *, seed: int) -> Bootstrapped:
    """Return draws of sum(above) / sum(below), resampled over their common units. `below` must be positive."""
    drawn = _draws(len(above), seed)
    return Bootstrapped(np.sort((drawn @ np.array(above, dtype=np.float64)) / (drawn @ np.array(below))))


def detectable(table: Table, *, alpha: float, power: float) -> float:
    """Return the least true difference that a one-sided test at `alpha` finds with this `power`, to first order."""
    normal = NormalDist()
    return _rounded((normal.inv_cdf(1 - alpha) + normal.inv_cdf(power)) * table.standard_error())


def _draws(units: int, seed: int) -> Floats:
    """Return how often each unit is in each draw (draws × units)."""
    generator = np.random.PCG64(np.random.SeedSequence([seed, _BOOTSTRAP_STREAM]))
    raw = generator.random_raw(math.ceil(BOOTSTRAPS * units / 2)).astype("<u8").view("<u4")[: BOOTSTRAPS * units]
    # Multiply and shift: uniform to one part in 2^32 / units.
    drawn = (raw.astype(np.uint64) * np.uint64(units)) >> np.uint64(32)
    places = drawn.astype(np.int64).reshape(BOOTSTRAPS, units) + units * np.arange(BOOTSTRAPS)[:, None]
    counted = np.bincount(places.ravel(), minlength=BOOTSTRAPS * units)
    return counted.reshape(BOOTSTRAPS, units).astype(np.float64)


def _rounded(value: float | np.floating) -> float:
    # Adding 0 makes a negative zero a plain one, which JSON writes differently.
    return round(float(value), DIGITS) + 0.0


def _weighted(means: Floats) -> Scores:
    accuracy, coherence, knowledge = (min(1.0, float(mean)) for mean in means)
    return Scores(
        composite=min(1.0, float(means @ _WEIGHTS)), accuracy=accuracy, coherence=coherence, knowledge=knowledge
    )
