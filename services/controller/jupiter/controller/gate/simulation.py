"""The gate tried on models whose difference is known: how often is it wrong, how often does it find what is there?

Owns: the simulated models and the count of promotions, and of looks that the gate did not believe: a gate that never
sees anything it believes promotes nobody, which is no sign of being safe.
Does not know: any rule of the gate; every look goes through `decide`, as a report in a cluster does.

An item has a difficulty that all models share; what a model has beyond it is its own, partly per document. The
generator answers once and keeps its answers, for it is the same model on the same items at every look. Each look is
another checkpoint of the same true ability, whose own part is drawn anew or, with `carry`, resembles the one before.
The general suite and the shadow batch are left out: their figures are no matter of looks.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from statistics import NormalDist
from typing import Literal

import numpy as np
import numpy.typing as npt

from jupiter.config.sections import SelfImprovementSection
from jupiter.controller.gate.decision import decide
from jupiter.controller.gate.own_scores import Row, confirmed, first_history, opened, report_of
from jupiter.controller.gate.verdict import Verdict
from jupiter.reports import CLUSTERS_MIN, DIMENSIONS, Dimension

__all__ = ["Found", "Scenario", "simulate"]

Floats = npt.NDArray[np.float64]
Scoring = Literal["binary", "graded"]

# As the evaluator shares items among the dimensions: 40, 30 and 30 %.
PATTERN: tuple[Dimension, ...] = (
    *("accuracy", "coherence", "knowledge", "accuracy", "coherence"),
    *("knowledge", "accuracy", "coherence", "knowledge", "accuracy"),
)
GRADES = 4
"""Graded scores go in quarters, as a pairwise judge gives them."""
STRETCH = 4
"""So many items after each other measure every dimension, wherever they begin."""
RUNS_PER_TASK = 50


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """What is simulated. Raises ValueError where a half measures too little to be scored, or no score the effect."""

    config: SelfImprovementSection
    """Its `benchmark_samples` is the number of items of both halves together."""
    effect: float
    """The candidate's true gain, in points of score, in every dimension."""
    looks: int = 20
    scoring: Scoring = "binary"
    correlation: float = 0.5
    """Of two models' latent ability on one item: the difficulty that they share."""
    documents_of: int = 5
    """Items of one document."""
    document_share: float = 0.1
    """Part of a model's own latent variance that all items of a document share (design effect about 1.2)."""
    development_share: float = 0.25
    """Of the items; the evaluator freezes benchmarks so, where documents allow."""
    carry: float = 0.0
    """Correlation of a checkpoint's own part with that of the look before."""
    seed: int = 0

    def __post_init__(self) -> None:
        _shift(self)
        samples, middle = self.config.benchmark_samples, self.development_items
        for half, start, end in (("development", 0, middle), ("sealed", middle, samples)):
            missing = [name for name in DIMENSIONS if name not in _dimensions(start, end)]
            if missing:
                raise ValueError(
                    f"of {samples} samples {end - start} are in the {half} half, and none of them measures "
                    f"{' or '.join(missing)}; {self.samples_min} samples are enough"
                )

    @property
    def development_items(self) -> int:
        return round(self.config.benchmark_samples * self.development_share)

    @property
    def samples_min(self) -> int:
        """So many samples give both halves every dimension, and as many documents as the gate asks for."""
        least = max(STRETCH, (CLUSTERS_MIN - 1) * self.documents_of + 1)
        return math.ceil(least / min(self.development_share, 1 - self.development_share))

    @cached_property
    def settings(self) -> SelfImprovementSection:
        return self.config.model_copy(
            update={"general_suite": False, "shadow_check": False, "min_steps_before_replace": 0}
        )


@dataclass(frozen=True, kw_only=True)
class Found:
    """What came of it."""

    runs: int
    promoted: int
    """Runs that ended in a promotion within the looks."""
    openings: int
    """Openings of the sealed half, over all runs."""
    looks: int
    """Looks taken, over all runs: a run ends with its promotion."""
    invalid_looks: int = 0
    """Of them: INVALID, so that nothing was decided."""
    faults: Mapping[str, int] = field(default_factory=dict)
    """Name of a check -> looks that were INVALID for it."""
    example: str = ""
    """The line of one such check."""

    @property
    def rate(self) -> float:
        return self.promoted / self.runs

    @property
    def interval(self) -> tuple[float, float]:
        """Return the 95 % interval of the rate (Wilson): 2,000 runs are not all runs."""
        z = NormalDist().inv_cdf(0.975)
        middle = (self.rate + z * z / (2 * self.runs)) / (1 + z * z / self.runs)
        spread = self.rate * (1 - self.rate) / self.runs + (z / (2 * self.runs)) ** 2
        half = z * math.sqrt(spread) / (1 + z * z / self.runs)
        return max(0.0, middle - half), min(1.0, middle + half)


def simulate(
    scenario: Scenario, *, runs: int, processes: int = 1, progress: Callable[[int], None] = lambda _: None
) -> Found:
    """Return what came of so many runs. The same for any number of processes: every run has a seed of its own.

    `progress` is called with how many runs were finished since the last call.
    """
    edges = [*range(0, runs, RUNS_PER_TASK), runs]
    tasks = [range(start, end) for start, end in pairwise(edges)]
    found = Found(runs=0, promoted=0, openings=0, looks=0)
    for part in _parts(scenario, tasks, processes):
        found = _together(found, part)
        progress(part.runs)
    return found


def _together(one: Found, other: Found) -> Found:
    return Found(
        runs=one.runs + other.runs,
        promoted=one.promoted + other.promoted,
        openings=one.openings + other.openings,
        looks=one.looks + other.looks,
        invalid_looks=one.invalid_looks + other.invalid_looks,
        faults=dict(Counter(one.faults) + Counter(other.faults)),
        example=one.example or other.example,
    )


def _parts(scenario: Scenario, tasks: list[range], processes: int) -> Iterator[Found]:
    if processes == 1:
        yield from (_task(scenario, task) for task in tasks)
        return
    with ProcessPoolExecutor(max_workers=processes) as pool:
        yield from pool.map(_task, [scenario] * len(tasks), tasks)


def _task(scenario: Scenario, numbers: range) -> Found:
    found = Found(runs=0, promoted=0, openings=0, looks=0)
    for number in numbers:
        found = _together(found, _run(scenario, number))
    return found


def _run(scenario: Scenario, number: int) -> Found:
    """Return what came of one run: it ends with a promotion, or with the last look."""
    history, benchmark = first_history(), f"benchmark {scenario.seed} {number}"
    verdicts: list[Verdict] = []
    openings = 0
    for look, paper in enumerate(_looks(scenario, number), start=1):
        report = report_of(paper.rows(0, scenario.development_items), step=look, benchmark=benchmark)
        verdict = decide(report, history, scenario.settings)
        if verdict.wants == "confirmation":
            history, openings = opened(history, report), openings + 1
            sealed = paper.rows(scenario.development_items, scenario.settings.benchmark_samples)
            verdict = decide(confirmed(report, sealed, history), history, scenario.settings)
        verdicts.append(verdict)
        if verdict.decision == "PROMOTE":
            break
    faults = [check for verdict in verdicts for check in verdict.checks if check.outcome == "invalid"]
    return Found(
        runs=1,
        promoted=sum(verdict.decision == "PROMOTE" for verdict in verdicts),
        openings=openings,
        looks=len(verdicts),
        invalid_looks=sum(verdict.decision == "INVALID" for verdict in verdicts),
        faults=dict(Counter(check.name for check in faults)),
        example=faults[0].line if faults else "",
    )


@dataclass(frozen=True)
class _Paper:
    """Both models' scores at one look; rows are made only of the half that is looked at."""

    labels: list[tuple[Dimension, str]]
    candidate: list[float]
    generator: list[float]

    def rows(self, start: int, end: int) -> list[Row]:
        scored = zip(self.labels[start:end], self.candidate[start:end], self.generator[start:end], strict=True)
        return [(dimension, cluster, ours, theirs) for (dimension, cluster), ours, theirs in scored]


def _looks(scenario: Scenario, number: int) -> Iterator[_Paper]:
    draw = np.random.default_rng([scenario.seed, number])
    items, middle = scenario.settings.benchmark_samples, scenario.development_items
    documents = np.arange(items) // scenario.documents_of
    # A document lies wholly in one half.
    documents[middle:] += documents[middle - 1] + 1 - documents[middle]
    labels = [(PATTERN[item % len(PATTERN)], f"document {document}") for item, document in enumerate(documents)]
    shared = draw.standard_normal(items) * math.sqrt(scenario.correlation)
    generator = _scores(shared + _own(draw, documents, scenario), 0.0, scenario)
    own, carry = _own(draw, documents, scenario), scenario.carry
    shift = _shift(scenario)
    for _ in range(scenario.looks):
        yield _Paper(labels, _scores(shared + own, shift, scenario), generator)
        own = carry * own + math.sqrt(1 - carry**2) * _own(draw, documents, scenario)


def _dimensions(start: int, end: int) -> set[Dimension]:
    """Return what the items of a stretch measure."""
    return {PATTERN[item % len(PATTERN)] for item in range(start, min(end, start + STRETCH))}


def _own(draw: np.random.Generator, documents: npt.NDArray[np.int64], scenario: Scenario) -> Floats:
    """Return what a model has beyond an item's difficulty."""
    share = scenario.document_share
    of_document = draw.standard_normal(int(documents[-1]) + 1)[documents]
    mixed: Floats = math.sqrt(share) * of_document + math.sqrt(1 - share) * draw.standard_normal(len(documents))
    return mixed * math.sqrt(1 - scenario.correlation)


def _scores(latent: Floats, shift: float, scenario: Scenario) -> list[float]:
    """Return scores in [0, 1], half of the mark on average where the shift is 0."""
    cuts = _cuts(scenario.scoring)
    scores: list[float] = (np.searchsorted(cuts, latent + shift) / len(cuts)).tolist()
    return scores


def _cuts(scoring: Scoring) -> list[float]:
    steps = 1 if scoring == "binary" else GRADES
    return [NormalDist().inv_cdf((step + 1) / (steps + 1)) for step in range(steps)]


def _shift(scenario: Scenario) -> float:
    """Return the latent shift that raises the mean score by the effect; found by bisection. Raises ValueError."""
    normal, cuts = NormalDist(), _cuts(scenario.scoring)
    if not 0 <= scenario.effect < 0.5:
        raise ValueError(f"an effect of {scenario.effect} cannot be simulated: scores begin at .5, so it is 0 to .49")
    low, high = 0.0, 10.0
    for _ in range(60):
        middle = (low + high) / 2
        mean = sum(1 - normal.cdf(cut - middle) for cut in cuts) / len(cuts)
        low, high = (middle, high) if mean < 0.5 + scenario.effect else (low, middle)
    return (low + high) / 2
