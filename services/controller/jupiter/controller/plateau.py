"""The ceiling: has training stopped to gain on the current generator?

Owns: the finding, as a pure function of figures that were measured. Does not know: where they come from, nor what would
lift it (`lifts`).

The customer's document says that a cycle hits a limit some day; this says when. Over the last N evaluations against the
same generator on the same benchmark all three must hold:

1. no hint of a rise: the Mann-Kendall test (Mann 1945; Kendall 1975, exact null distribution) of an upward trend has
   p >= .10. It needs no model of the noise, and a series that rises all the time is never a plateau;
2. the trend is small: its Theil-Sen slope (Sen 1968) over the whole window is within the noise;
3. no late jump: the best of the window is not above the best before it by more than the noise ("patience", as early
   stopping has it: Prechelt 1998).

Noise is the half-width of an evaluation's own 95 % interval. Two checkpoints answer the same items, and where their
scores correlate by one half, as the gate's simulations assume, their difference is as noisy as each of them.

Simulated with that noise (tests/unit/controller/test_plateau.py), at the 16th evaluation: a flat series is found in
89 %, one that rises by a quarter of the half-width at each evaluation in 0.4 %. A much slower rise is called a plateau
sooner or later, which is why the line shows trend and noise.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median

from pydantic import Field

from jupiter.config.sections import SelfImprovementSection
from jupiter.controller.lifts import Facts, Lift, Stall, lifts
from jupiter.controller.trends import rise_p_value, slope
from jupiter.events import EvaluationCompleted
from jupiter.records import Record

__all__ = ["Facts", "Lift", "Plateau", "Point", "plateau", "points_of"]

RISE_P_MIN = 0.10
"""Below it there is a hint of a rise. Laxer than the usual .05: to call a slow rise a ceiling is the worse mistake."""


class Point(Record):
    """One evaluation against the generator in question."""

    step: int
    difference: float = Field(allow_inf_nan=False)
    ci_low: float = Field(allow_inf_nan=False)
    ci_high: float = Field(allow_inf_nan=False)


class Plateau(Record):
    """No gain beyond noise over the last evaluations."""

    evaluations: int
    """How many, N."""
    first_step: int
    last_step: int
    best: float
    """Best difference of the whole series."""
    best_step: int
    gain: float
    """Best difference of the window less the best before it."""
    trend: float
    """Theil-Sen slope times the length of the window."""
    rise_p_value: float
    noise: float
    lifts: tuple[Lift, ...]

    @property
    def line(self) -> str:
        """Return the finding in one line."""
        return (
            f"plateau: no gain beyond noise in the last {self.evaluations} evaluations "
            f"(steps {self.first_step}–{self.last_step}): trend {self.trend:+.3f}, noise ±{self.noise:.3f}, "
            f"best difference {self.best:+.3f} at step {self.best_step}"
        )

    @property
    def lines(self) -> tuple[str, ...]:
        """Return the finding, then one line per lift."""
        return (self.line, *(f"would lift it: {lift.action} ({lift.because})" for lift in self.lifts))


def points_of(
    evaluations: Iterable[EvaluationCompleted], *, generator_version: int, benchmark_digest: str
) -> tuple[Point, ...]:
    """Return the evaluations against one generator on one benchmark, in the order given (that of the stream)."""
    return tuple(
        Point(step=event.step, difference=event.difference, ci_low=event.ci_low, ci_high=event.ci_high)
        for event in evaluations
        if event.generator_version == generator_version and event.benchmark_digest == benchmark_digest
    )


def plateau(points: Sequence[Point], facts: Facts, settings: SelfImprovementSection) -> Plateau | None:
    """Return the plateau, or None: still rising, or fewer than `plateau_evaluations` + 1 points."""
    count = settings.plateau_evaluations
    if len(points) <= count:
        return None
    before, window = points[:-count], points[-count:]
    noise = median((point.ci_high - point.ci_low) / 2 for point in window)
    differences = [point.difference for point in window]
    trend = slope(differences) * (count - 1)
    gain = max(differences) - max(point.difference for point in before)
    p_value = rise_p_value(differences)
    if p_value < RISE_P_MIN or trend > noise or gain > noise:
        return None
    best = max(points, key=lambda point: point.difference)
    stall = Stall(facts=facts, settings=settings, best=best.difference, trend=trend, noise=noise)
    return Plateau(
        evaluations=count,
        first_step=window[0].step,
        last_step=window[-1].step,
        best=best.difference,
        best_step=best.step,
        gain=gain,
        trend=trend,
        rise_p_value=p_value,
        noise=noise,
        lifts=lifts(stall),
    )
