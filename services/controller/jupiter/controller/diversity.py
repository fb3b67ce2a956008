"""Is what is generated now less varied than it was, and by how much more than chance would make it?

Owns: which of a shard's figures are judged, how two windows of shards are compared, and the bounds. Pure.
Does not know: which windows (`breaker`, `aftermath`), or how a figure is measured (the curator).

No generator writes like its corpus: the base model's distinct-2 lies three resampling SDs below the real text's from
its first shard on, so "more than 3 SD away" alone would never be silent. What is judged is therefore how much *further*
from the real data a window of shards lies than a reference window does. And a loss counts only where it is also more
than the shards' own ups and downs (CERTAIN_SD standard errors): a shard holds few rare words, and a tenth of them comes
and goes by chance.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jupiter.config.sections import DiversitySection
from jupiter.events import ShardCurated
from jupiter.records import SharedRecord

__all__ = ["SHARDS_MIN", "Figure", "compare", "measured"]

DISTANCES = ("distinct_1", "distinct_2", "distinct_4", "compression_ratio", "self_similarity", "words_mean")
RARE_BUCKETS = ("once", "2_to_4")
SHARDS_MIN = 2
"""Of one shard alone nothing is concluded."""
SPREAD_SHARDS = 32
"""So many shards before a window say how much shards differ."""
CERTAIN_SD = 3.5
"""Standard errors beyond which a change is not taken for chance: a run has hundreds of windows, all of them against the
same few first shards. Simulated with the base model's own ups and downs (tests/unit/controller/test_breaker.py)."""
REPEATS_MAX = 0.5
"""Where half of a batch repeats the other half, no reference excuses it."""

MATERIAL_SHARE = 0.05
"""Of the real data's figure: a distance that grew by less is none that matters, however exactly large shards show it,
or however alike real documents are (where all are of one length, their mean length has no spread at all)."""
DIGITS = 6
"""Of a figure, and the least bound: where nothing ever differed, rounding is no alarm."""


class Figure(SharedRecord):
    """One figure of a window of shards, beside that of the reference."""

    name: str
    value: float
    """Mean over the window; of a distance figure, the synthetic data's less the real data's."""
    reference: float
    """The same over the reference window."""
    excess: float
    """How much worse than the reference, in the unit of the bound; negative: better."""
    bound: float
    """Above 0."""
    past: bool
    line: str
    """As a person reads it."""


@dataclass(frozen=True)
class _Point:
    """A figure of one shard, the standard deviation that resampling gives it, and what it is measured against."""

    value: float
    sd: float
    scale: float = 1.0
    """Of a distance: the real data's figure."""


@dataclass(frozen=True)
class _Case:
    """A figure's window, its reference, and the standard deviation of one shard."""

    now: float
    reference: float
    scale: float
    sd: float
    certain: float
    """The difference of the two means that is more than chance."""


def measured(shard: ShardCurated) -> bool:
    """Whether the shard carries figures: one of an older release does not, and is passed over."""
    return bool(shard.diversity)


def compare(
    now: Sequence[ShardCurated],
    reference: Sequence[ShardCurated],
    *,
    before: Sequence[ShardCurated],
    settings: DiversitySection,
    adjacent: bool = False,
) -> tuple[Figure, ...]:
    """Compare two windows; a figure that fewer than SHARDS_MIN shards of either carry is left out.

    `before`: earlier shards, which show how much shards differ. `adjacent`: the reference comes right before the
    window. Only then is the share judged that repeats earlier shards: it grows in every long run over a corpus that
    does not, but it does not jump unless a version has learned its training data by heart.
    """
    windows = (now, reference, before[-SPREAD_SHARDS:])
    figures: list[Figure] = []
    for name, read in _READERS.items():
        if name == "duplicates" and not adjacent:
            continue
        sides = [[point for shard in side if (point := read(shard))] for side in windows]
        if min(len(sides[0]), len(sides[1])) < SHARDS_MIN:
            continue
        figures.append(_JUDGES[name](name, _case(*sides), settings))
    return tuple(figures)


def _case(now: Sequence[_Point], reference: Sequence[_Point], before: Sequence[_Point]) -> _Case:
    resampled = statistics.fmean(point.sd for point in (*now, *reference))
    sd = max(resampled, _spread([point.value for point in before]))
    return _Case(
        now=statistics.fmean(point.value for point in now),
        reference=statistics.fmean(point.value for point in reference),
        scale=statistics.fmean(point.scale for point in now),
        sd=sd,
        certain=CERTAIN_SD * sd * math.sqrt(1 / len(now) + 1 / len(reference)),
    )


def _spread(values: Sequence[float]) -> float:
    """Return the standard deviation between shards, by the median step from one to the next.

    A slow drift does not widen it, nor does an earlier collapse: that is two large steps among many.
    """
    steps = [abs(later - earlier) for earlier, later in itertools.pairwise(values)]
    # The median of |a - b| for two normal draws of standard deviation 1 is 0.6745 * sqrt(2).
    return statistics.median(steps) / 0.9539 if len(steps) >= 2 else 0.0


def _distance(name: str, case: _Case, settings: DiversitySection) -> Figure:
    excess = abs(case.now) - abs(case.reference)
    bound = max(settings.distance_sd_max * case.sd, case.certain, MATERIAL_SHARE * abs(case.scale))
    line = (
        f"{name} lies {case.now:+.4f} from the real data's, in the reference {case.reference:+.4f}: "
        f"{excess:.4f} further (bound {bound:.4f}, of one shard the SD is {case.sd:.4f})"
    )
    return _figure(name, case, excess=excess, bound=bound, line=line)


def _coverage(name: str, case: _Case, settings: DiversitySection) -> Figure:
    bucket = name.removeprefix("coverage.")
    return _loss(name, f"coverage of words that real passages hold {bucket.replace('_', ' ')}", case, settings)


def _acceptance(name: str, case: _Case, settings: DiversitySection) -> Figure:
    return _loss(name, "acceptance", case, settings)


def _loss(name: str, what: str, case: _Case, settings: DiversitySection) -> Figure:
    """Judge a share by its relative loss."""
    share = settings.acceptance_loss_max if name == "acceptance" else settings.coverage_drop_max
    excess = case.reference - case.now
    bound = max(share * case.reference, case.certain)
    percent = 100 / case.reference if case.reference else 0.0
    line = (
        f"{what} is {case.now:.3f}, in the reference {case.reference:.3f}: {excess * percent:.0f} % lost "
        f"(bound {bound * percent:.0f} %)"
    )
    return _figure(name, case, excess=excess, bound=bound, line=line)


def _duplicates(name: str, case: _Case, settings: DiversitySection) -> Figure:
    excess = case.now - case.reference
    bound = max(settings.repeats_rise_max, case.certain)
    line = (
        f"{case.now:.3f} of the samples repeat earlier ones, in the reference {case.reference:.3f} "
        f"(bound {case.reference + bound:.3f})"
    )
    return _figure(name, case, excess=excess, bound=bound, line=line)


def _repeats(name: str, case: _Case, settings: DiversitySection) -> Figure:
    excused = min(case.reference, REPEATS_MAX - settings.repeats_rise_max)
    excess = case.now - excused
    bound = max(settings.repeats_rise_max, case.certain)
    line = (
        f"repeats within a batch are {case.now:.3f}, in the reference {case.reference:.3f} "
        f"(bound {excused + bound:.3f})"
    )
    return _figure(name, case, excess=excess, bound=bound, line=line)


def _figure(name: str, case: _Case, *, excess: float, bound: float, line: str) -> Figure:
    bound = max(round(bound, DIGITS), 10**-DIGITS)
    return Figure(
        name=name,
        value=round(case.now, DIGITS),
        reference=round(case.reference, DIGITS),
        excess=round(excess, DIGITS),
        bound=bound,
        past=excess > bound,
        line=line,
    )


def _distance_reader(name: str) -> Callable[[ShardCurated], _Point | None]:
    def read(shard: ShardCurated) -> _Point | None:
        figures = shard.diversity
        if f"synthetic.{name}" not in figures or f"real.{name}" not in figures:
            return None
        distance = figures[f"synthetic.{name}"] - figures[f"real.{name}"]
        return _Point(distance, figures.get(f"real_sd.{name}", 0.0), figures[f"real.{name}"])

    return read


def _coverage_reader(bucket: str) -> Callable[[ShardCurated], _Point | None]:
    def read(shard: ShardCurated) -> _Point | None:
        share = shard.diversity.get(f"coverage.{bucket}")
        return None if share is None else _Point(share, shard.diversity.get(f"coverage_sd.{bucket}", 0.0))

    return read


def _share_reader(name: str, count_name: str) -> Callable[[ShardCurated], _Point | None]:
    def read(shard: ShardCurated) -> _Point | None:
        share, count = shard.diversity.get(name), shard.diversity.get(count_name, 0.0)
        if share is None or count < 1:
            return None
        # One more of either outcome: a share of 0 in eight samples is not a certain 0.
        smoothed = (share * count + 1) / (count + 2)
        return _Point(share, math.sqrt(smoothed * (1 - smoothed) / count))

    return read


_READERS: dict[str, Callable[[ShardCurated], _Point | None]] = {
    **{f"coverage.{bucket}": _coverage_reader(bucket) for bucket in RARE_BUCKETS},
    **{name: _distance_reader(name) for name in DISTANCES},
    "acceptance": _share_reader("acceptance", "eligible"),
    "repeats": _share_reader("repeats", "made"),
    "duplicates": _share_reader("duplicates", "judged"),
}
_JUDGES: dict[str, Callable[[str, _Case, DiversitySection], Figure]] = {
    **{f"coverage.{bucket}": _coverage for bucket in RARE_BUCKETS},
    **dict.fromkeys(DISTANCES, _distance),
    "acceptance": _acceptance,
    "repeats": _repeats,
    "duplicates": _duplicates,
}
