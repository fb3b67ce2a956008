"""The diversity breaker: when does generated data stop being varied enough, and when is it again?

Owns: the windows, and the rule that raises and clears an alarm. A pure function of the shards in stream order, the
alarms so far and the settings: every controller finds the same alarm at the same shard, whenever it looks.
Does not know: what an alarm sets off (the curator mixes in more real data, the gate holds promotions), nor how one
figure is judged (`diversity`).

Reference: the first `window_shards` shards of the run, which its first version made. Window: the newest
`window_shards` shards of one version that are not of the reference; two are enough to judge. One figure past its bound
at `shards_running_block` judged shards running raises the alarm; every figure within `recover_margin` of its bound at
`recover_shards` judged shards running clears it. "Running" is counted among the shards of one version to raise, and
among all that came after the alarm to clear: after a rollback it is the older version that has to prove itself.

What this cannot see is a generator that was uniform from its first shard on, since that is the reference; only
repeats within a batch have a bound of their own.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from jupiter.config.sections import DiversitySection
from jupiter.controller.diversity import SHARDS_MIN, Figure, compare, measured
from jupiter.events import DiversityAlarmCleared, DiversityAlarmRaised, ShardCurated

__all__ = ["Alarm", "judge", "open_alarm", "standing"]

Alarm = DiversityAlarmRaised | DiversityAlarmCleared


def judge(
    shards: Sequence[ShardCurated], alarms: Sequence[Alarm], settings: DiversitySection, *, settled: int = 0
) -> Alarm | None:
    """Return the first alarm, or end of one, that is due after `alarms`, as the event to publish; None when none is.

    Ask again with the event added until None comes: several may be due after a pause. `settled` is the number of shards
    at which the answer was None with the same alarms; it spares work and changes nothing.
    """
    series = _Series(shards, settings)
    since = -1
    if alarms:
        place = series.place_of(alarms[-1].shard_id)
        if place is None:  # the alarm was heard before its shard: channels are read side by side
            return None
        since = place
    first = max(since + 1, sum(map(measured, shards[:settled])))
    due = _clear_due if open_alarm(alarms) else _raise_due
    for place in range(first, len(series)):
        event = due(series, place, since)
        if event is not None:
            return event
    return None


def open_alarm(alarms: Sequence[Alarm]) -> DiversityAlarmRaised | None:
    """Return the alarm that is open, None when there was none or the last one was cleared."""
    last = alarms[-1] if alarms else None
    return last if isinstance(last, DiversityAlarmRaised) else None


def standing(shards: Sequence[ShardCurated], settings: DiversitySection) -> tuple[Figure, ...]:
    """Return the figures of the newest window; none while there are too few shards to judge."""
    series = _Series(shards, settings)
    return (series.figures(len(series) - 1) or ()) if len(series) else ()


def _raise_due(series: _Series, place: int, since: int) -> DiversityAlarmRaised | None:
    wanted = series.settings.shards_running_block
    running = series.newest_of_version(place, wanted, since=since)
    if len(running) < wanted:
        return None
    if not set.intersection(*({figure.name for figure in figures if figure.past} for figures in running)):
        return None
    shard = series.shards[place]
    return DiversityAlarmRaised(
        domain=shard.domain,
        shard_id=shard.shard_id,
        generator_version=shard.generator_version,
        alarms=tuple(figure.line for figure in running[0] if figure.past),
    )


def _clear_due(series: _Series, place: int, since: int) -> DiversityAlarmCleared | None:
    wanted, margin = series.settings.recover_shards, series.settings.recover_margin
    running = series.newest(place, wanted, since=since)
    if len(running) < wanted:
        return None
    if any(figure.excess > margin * figure.bound for figures in running for figure in figures):
        return None
    shard = series.shards[place]
    return DiversityAlarmCleared(
        domain=shard.domain,
        shard_id=shard.shard_id,
        generator_version=shard.generator_version,
        figures=tuple(figure.line for figure in running[0]),
    )


class _Series:
    """The shards that carry figures, and the figures of the window that ends at each of them."""

    def __init__(self, shards: Sequence[ShardCurated], settings: DiversitySection) -> None:
        self.settings = settings
        self.shards = tuple(shard for shard in shards if measured(shard))
        self._places: dict[int, list[int]] = {}
        """Version -> its shards' places in the stream."""
        self._ranks: list[int] = []
        for place, shard in enumerate(self.shards):
            places = self._places.setdefault(shard.generator_version, [])
            self._ranks.append(len(places))
            places.append(place)
        self._known: dict[int, tuple[Figure, ...] | None] = {}

    def __len__(self) -> int:
        return len(self.shards)

    def place_of(self, shard_id: str) -> int | None:
        """Return where the shard stands, None when it is not here."""
        return next((place for place, shard in enumerate(self.shards) if shard.shard_id == shard_id), None)

    def newest_of_version(self, place: int, count: int, *, since: int) -> list[tuple[Figure, ...]]:
        """Return the figures at up to `count` judged shards of this version, newest first; see `newest`."""
        own = self._places[self.shards[place].generator_version][: self._ranks[place] + 1]
        return self._newest(place, itertools.takewhile(lambda at: at > since, reversed(own)), count)

    def newest(self, place: int, count: int, *, since: int) -> list[tuple[Figure, ...]]:
        """Return the figures at up to `count` shards after `since` that can be judged, newest first.

        None unless the shard at `place` itself can be judged: nothing is concluded anew where nothing new is known.
        """
        return self._newest(place, range(place, since, -1), count)

    def _newest(self, place: int, places: Iterable[int], count: int) -> list[tuple[Figure, ...]]:
        if self.figures(place) is None:
            return []
        return list(itertools.islice((figures for at in places if (figures := self.figures(at))), count))

    def figures(self, place: int) -> tuple[Figure, ...] | None:
        """Return the figures of the window that ends here, None where it or the reference has too few shards."""
        if place not in self._known:
            self._known[place] = self._judge(place)
        return self._known[place]

    def _judge(self, place: int) -> tuple[Figure, ...] | None:
        size, version = self.settings.window_shards, self.shards[place].generator_version
        of_first = self._places[self.shards[0].generator_version][:size]
        reference = [at for at in of_first if at <= place]
        own = [at for at in self._places[version][: self._ranks[place] + 1] if at not in reference]
        window = own[-size:]
        if min(len(window), len(reference)) < SHARDS_MIN:
            return None
        before = [*reference, *own[: -len(window)]]
        now, first, earlier = ([self.shards[at] for at in places] for places in (window, reference, before))
        return compare(now, first, before=earlier, settings=self.settings) or None
