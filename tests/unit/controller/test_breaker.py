"""The diversity breaker: silent on a healthy run, quick on a collapse, and clear only when it is over."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupiter.config.sections import DiversitySection
from jupiter.controller.breaker import Alarm, judge, open_alarm, standing
from jupiter.events import DiversityAlarmCleared, DiversityAlarmRaised, ShardCurated
from tests.unit.controller.shards import COLLAPSE, collapsed, healthy, ids, shard, without_texts

SETTINGS = DiversitySection()


def alarms_of(shards: Sequence[ShardCurated], section: DiversitySection = SETTINGS) -> list[Alarm]:
    """All events, found at the end, as a controller does that was away."""
    alarms: list[Alarm] = []
    while (event := judge(shards, alarms, section)) is not None:
        alarms.append(event)
    return alarms


def alarms_as_they_came(shards: Sequence[ShardCurated], *, remembering: bool) -> list[Alarm]:
    """All events, asked for after every single shard."""
    alarms: list[Alarm] = []
    settled = 0
    for count in range(1, len(shards) + 1):
        while (event := judge(shards[:count], alarms, SETTINGS, settled=settled if remembering else 0)) is not None:
            alarms.append(event)
            settled = 0
        settled = count
    return alarms


def test_healthy_runs_are_seldom_disturbed() -> None:
    """60 runs of 80 shards each with the ups and downs that were measured: one in thirty raises any alarm at all."""
    disturbed = sum(judge(healthy(80, seed=seed), (), SETTINGS) is not None for seed in range(60))
    assert disturbed <= 2


def test_a_generator_far_from_real_text_since_its_first_shard_is_no_alarm() -> None:
    shards = healthy(40)
    figures = {figure.name: figure for figure in standing(shards, SETTINGS)}
    assert figures["distinct_2"].value < -3 * shards[0].diversity["real_sd.distinct_2"]
    assert figures["distinct_2"].excess == 0
    assert judge(shards, (), SETTINGS) is None


@pytest.mark.parametrize("seed", range(10))
def test_a_collapse_trips_within_three_shards(seed: int) -> None:
    shards = [*healthy(12, seed=seed), *collapsed(6, start=12, seed=seed)]
    alarm = judge(shards, (), SETTINGS)
    assert isinstance(alarm, DiversityAlarmRaised)
    assert alarm.shard_id in ids(shards)[12:15]


def test_an_alarm_has_one_line_per_figure_with_value_and_bound() -> None:
    alarm = judge([*healthy(8), *collapsed(4, start=8)], (), SETTINGS)
    assert isinstance(alarm, DiversityAlarmRaised)
    assert len(alarm.alarms) == len(set(alarm.alarms)) >= 5
    assert all("bound" in line for line in alarm.alarms)
    [once] = [line for line in alarm.alarms if "hold once" in line]
    assert "in the reference 0.476" in once


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("coverage__once", 0.15),
        ("coverage__2_to_4", 0.35),
        ("synthetic__distinct_2", 0.65),
        ("synthetic__distinct_1", 0.60),  # more varied than real text by more than it was less: noise, not language
        ("synthetic__compression_ratio", 3.0),
        ("synthetic__self_similarity", 0.25),
        ("synthetic__words_mean", 8.0),
        ("acceptance", 0.2),
        ("repeats", 0.3),
    ],
)
def test_each_figure_alone_can_trip_and_is_named(name: str, value: float) -> None:
    figures: dict[str, Any] = {name: value}
    shards = [*healthy(10), *(shard(10 + number, **figures) for number in range(6))]
    alarm = judge(shards, (), SETTINGS)
    assert isinstance(alarm, DiversityAlarmRaised)
    assert len(alarm.alarms) == 1


def test_half_of_the_vocabulary_lost_trips_though_every_other_figure_looks_better() -> None:
    """What was measured for the design: closer to real text by distinct-n and compression, rare words gone."""
    better: dict[str, Any] = {
        "synthetic__distinct_2": 0.823,
        "synthetic__distinct_1": 0.467,
        "synthetic__compression_ratio": 2.471,
    }
    lost: dict[str, Any] = {"coverage__once": 0.06, "coverage__2_to_4": 0.3}
    alarm = judge([*healthy(10), *(shard(10 + n, **better, **lost) for n in range(5))], (), SETTINGS)
    assert isinstance(alarm, DiversityAlarmRaised)
    assert all("coverage" in line for line in alarm.alarms)


def test_a_version_that_comes_nearer_to_real_text_is_no_alarm() -> None:
    nearer: dict[str, Any] = {"synthetic__distinct_2": 0.81, "synthetic__compression_ratio": 2.48, "acceptance": 0.8}
    assert judge([*healthy(10), *(shard(10 + n, version=2, **nearer) for n in range(10))], (), SETTINGS) is None


def test_a_tenth_of_the_rare_words_lost_is_an_alarm_only_where_it_is_more_than_chance() -> None:
    few = [*healthy(10), *(shard(10 + n, coverage__once=0.41) for n in range(6))]
    assert judge(few, (), SETTINGS) is None
    # Shards of thirty times the size: the same loss is now beyond what their resampling allows.
    exact = [one.model_copy(update={"diversity": {**one.diversity, "coverage_sd.once": 0.013}}) for one in few]
    alarm = judge(exact, (), SETTINGS)
    assert isinstance(alarm, DiversityAlarmRaised)
    assert "14 % lost (bound 10 %)" in alarm.alarms[0]


def test_where_real_documents_are_all_of_one_length_a_word_more_is_no_alarm() -> None:
    """A spread of nothing says nothing: the mean length of such documents is the same in every sample."""
    length: dict[str, Any] = {"real__words_mean": 20.0, "real_sd__words_mean": 0.0}
    reference = [shard(number, synthetic__words_mean=20.5, **length) for number in range(8)]
    longer = [shard(8 + number, synthetic__words_mean=21.0, **length) for number in range(6)]
    assert judge([*reference, *longer], (), SETTINGS) is None
    much_longer = [shard(8 + number, synthetic__words_mean=26.0, **length) for number in range(6)]
    assert judge([*reference, *much_longer], (), SETTINGS) is not None


def test_a_corpus_that_has_been_told_often_is_no_alarm() -> None:
    """More and more of what is made was made before: the run is long, the generator the same."""
    assert judge([shard(number, duplicates=min(0.9, number / 40)) for number in range(60)], (), SETTINGS) is None


def test_one_odd_shard_is_no_alarm() -> None:
    shards = [*healthy(10), shard(10, synthetic__distinct_2=0.65, coverage__once=0.2), *healthy(10, start=11)]
    assert alarms_of(shards) == []


def test_the_first_shards_are_the_reference_and_are_not_judged() -> None:
    assert standing(healthy(SETTINGS.window_shards + 1), SETTINGS) == ()
    assert standing(healthy(SETTINGS.window_shards + 2), SETTINGS)
    # Nothing to compare with: what was uniform from the start is not seen by distance …
    dull = [shard(number, synthetic__distinct_2=0.3) for number in range(12)]
    assert judge(dull, (), SETTINGS) is None
    # … but repeats within a batch have a bound of their own.
    [line] = judge([shard(number, repeats=0.9) for number in range(12)], (), SETTINGS).alarms  # type: ignore[union-attr]
    assert line.startswith("repeats within a batch are 0.900")


def test_no_accepted_sample_at_all_trips_by_acceptance() -> None:
    silent = [without_texts(shard(8 + number, acceptance=0.0)) for number in range(4)]
    alarm = judge([*healthy(8), *silent], (), SETTINGS)
    assert isinstance(alarm, DiversityAlarmRaised)
    assert alarm.shard_id == silent[3].shard_id
    assert [line.split(" ", 1)[0] for line in alarm.alarms] == ["acceptance"]


def test_an_alarm_lifts_itself_when_every_figure_was_within_bounds_long_enough() -> None:
    shards = [*healthy(10), *collapsed(5, start=10), *healthy(20, start=15)]
    raised, cleared = alarms_of(shards)
    assert isinstance(raised, DiversityAlarmRaised)
    assert isinstance(cleared, DiversityAlarmCleared)
    # The window must have left the collapse behind, and stay within bounds for `recover_shards` shards.
    recovered = ids(shards).index(cleared.shard_id)
    assert 15 + SETTINGS.recover_shards <= recovered <= 15 + SETTINGS.window_shards + SETTINGS.recover_shards
    assert len(cleared.figures) == len(standing(shards, SETTINGS))


def test_within_the_bound_but_not_well_within_does_not_clear() -> None:
    shards = [*healthy(10), *collapsed(5, start=10)]
    bound = next(figure.bound for figure in standing(healthy(10), SETTINGS) if figure.name == "distinct_2")
    nearly = 0.769 - 0.9 * bound
    assert [
        type(alarm) for alarm in alarms_of([*shards, *(shard(15 + n, synthetic__distinct_2=nearly) for n in range(30))])
    ] == [DiversityAlarmRaised]
    # The same series never raised an alarm by itself: that is the hysteresis.
    assert alarms_of([*healthy(10), *(shard(10 + n, synthetic__distinct_2=nearly) for n in range(30))]) == []
    well = 0.769 - 0.7 * bound
    assert len(alarms_of([*shards, *(shard(15 + n, synthetic__distinct_2=well) for n in range(30))])) == 2


def test_a_recovery_that_is_interrupted_starts_anew() -> None:
    shards = [
        *healthy(10),
        *collapsed(4, start=10),
        *healthy(6, start=14),
        *collapsed(1, start=20),
        *healthy(5, start=21),
    ]
    assert [type(alarm) for alarm in alarms_of(shards)] == [DiversityAlarmRaised]
    assert len(alarms_of([*shards, *healthy(10, start=26)])) == 2


def test_after_a_rollback_the_older_version_clears_the_alarm() -> None:
    shards = [*healthy(10), *collapsed(5, start=10, version=2), *healthy(6, start=15)]
    raised, cleared = alarms_of(shards)
    assert (raised.generator_version, cleared.generator_version) == (2, 1)
    assert cleared.shard_id == shards[15 + SETTINGS.recover_shards - 1].shard_id


def test_a_new_version_is_judged_by_its_own_shards_from_the_second_on() -> None:
    shards = [*healthy(10), *collapsed(4, start=10, version=2)]
    alarm = judge(shards, (), SETTINGS)
    assert isinstance(alarm, DiversityAlarmRaised)
    assert (alarm.generator_version, alarm.shard_id) == (2, shards[12].shard_id)


def test_a_second_collapse_is_seen_though_the_first_one_made_shards_differ() -> None:
    shards = [*healthy(12, seed=3), *collapsed(4, start=12, seed=3), *healthy(16, start=16, seed=4)]
    shards += collapsed(4, start=32, seed=5)
    assert [type(alarm).__name__ for alarm in alarms_of(shards)] == [
        "DiversityAlarmRaised",
        "DiversityAlarmCleared",
        "DiversityAlarmRaised",
    ]


def test_an_alarm_that_was_heard_before_its_shard_waits_for_it() -> None:
    shards = [*healthy(10), *collapsed(5, start=10), *healthy(20, start=15)]
    raised, cleared = alarms_of(shards)
    place = ids(shards).index(raised.shard_id)
    assert judge(shards[:place], [raised], SETTINGS) is None
    assert judge(shards, [raised], SETTINGS) == cleared


def test_shards_of_an_older_release_are_passed_over() -> None:
    shards = [*healthy(10), *collapsed(5, start=10)]
    old = [
        one.model_copy(update={"diversity": {}, "shard_id": f"{number:064x}"}) for number, one in enumerate(healthy(6))
    ]
    mixed = [*old[:3], *shards[:5], *old[3:], *shards[5:]]
    assert alarms_of(mixed) == alarms_of(shards)
    assert judge(old, (), SETTINGS) is None
    assert standing(old, SETTINGS) == ()


def test_nothing_is_open_before_and_after() -> None:
    assert open_alarm(()) is None
    raised, cleared = alarms_of([*healthy(10), *collapsed(5, start=10), *healthy(20, start=15)])
    assert open_alarm([raised]) == raised
    assert open_alarm([raised, cleared]) is None


phases = st.lists(
    st.tuples(st.sampled_from(["healthy", "collapsed", "thin"]), st.integers(1, 7), st.integers(1, 2)), max_size=6
)


@settings(max_examples=25, deadline=None)
@given(phases, st.integers(0, 5))
def test_every_controller_finds_the_same_alarms_whenever_it_looks(made: list[tuple[str, int, int]], seed: int) -> None:
    """Shard by shard, with or without memory, or all at once after a downtime: the same events, in turns."""
    draw = random.Random(seed)
    shards = healthy(6, seed=seed)
    for kind, count, version in made:
        for _ in range(count):
            figures: Mapping[str, Any] = (
                COLLAPSE if kind == "collapsed" else {"acceptance": 0.05} if kind == "thin" else {}
            )
            one = shard(len(shards), draw, version=version, **figures)
            shards.append(without_texts(one) if kind == "thin" else one)
    at_once = alarms_of(shards)
    assert alarms_as_they_came(shards, remembering=False) == at_once
    assert alarms_as_they_came(shards, remembering=True) == at_once
    kinds = [isinstance(alarm, DiversityAlarmRaised) for alarm in at_once]
    assert kinds == [place % 2 == 0 for place in range(len(kinds))]
    places = [ids(shards).index(alarm.shard_id) for alarm in at_once]
    assert places == sorted(set(places))
