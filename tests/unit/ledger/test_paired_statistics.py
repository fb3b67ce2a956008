"""The shared statistics: laws, and agreement with what is known."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupiter.reports import DIMENSION_WEIGHTS, DIMENSIONS, ItemResult, seed_of
from jupiter.statistics import (
    Bootstrapped,
    bootstrap,
    bootstrap_ratio,
    detectable,
    flip_signs,
    scores,
    summarise,
    tabulate,
)

few = settings(max_examples=20, deadline=None)
# What the draws of seed 11 gave when they were written down.
FLIPPED = (0.01474631342164459, 0.9855036240939765)
DRAWN = (0.024686864, 0.127081984)


def items(seed: int, *, count: int = 90, clusters: int = 15, shift: float = 0.0) -> list[ItemResult]:
    rng = random.Random(seed)
    return [
        ItemResult(
            item_id=f"{index}",
            dimension=DIMENSIONS[index % 3],
            kind="choice",
            cluster=f"c{index % clusters}" if clusters % 3 else f"c{rng.randrange(clusters)}",
            half="confirmation" if rng.random() < 0.5 else "development",
            candidate=min(1.0, max(0.0, rng.random() + shift)),
            generator=rng.random(),
        )
        for index in range(count)
    ]


def composite(scored: Sequence[ItemResult], *, seed: int) -> Bootstrapped:
    return bootstrap(tabulate(scored), seed=seed)["composite"]


def margin(scored: Sequence[ItemResult], *, seed: int) -> float:
    """What chance could take from the difference, at 95 %."""
    return tabulate(scored).difference() - composite(scored, seed=seed).lower(0.95)


def test_composite_is_the_weighted_sum_of_the_dimension_means() -> None:
    candidate, generator = scores(items(1))
    for found in (candidate, generator):
        assert math.isclose(found.composite, sum(w * found.of(d) for d, w in DIMENSION_WEIGHTS.items()))


def test_a_dimension_without_items_has_no_composite() -> None:
    with pytest.raises(ValueError, match="coherence"):
        scores([item for item in items(1) if item.dimension != "coherence"])


@few
@given(st.integers(0, 10_000))
def test_bounds_stand_around_the_difference(seed: int) -> None:
    table = tabulate(items(seed))
    drawn = bootstrap(table, seed=seed)
    assert drawn["composite"].lower(0.95) <= table.difference() <= drawn["composite"].upper(0.95)
    assert 0 < flip_signs(table, seed=seed).better <= 1
    for dimension in DIMENSIONS:
        assert drawn[dimension].lower(0.90) <= drawn[dimension].upper(0.90)


@few
@given(st.integers(0, 10_000))
def test_exchanging_the_models_mirrors_the_difference(seed: int) -> None:
    there = items(seed)
    back = [item.model_copy(update={"candidate": item.generator, "generator": item.candidate}) for item in there]
    one, other = tabulate(there), tabulate(back)
    assert math.isclose(one.difference(), -other.difference(), abs_tol=1e-12)
    lower, upper = composite(there, seed=seed).lower(0.95), composite(back, seed=seed).upper(0.95)
    assert math.isclose(lower, -upper, abs_tol=1e-9)


@few
@given(seed=st.integers(0, 10_000), low=st.floats(0.6, 0.9), high=st.floats(0.9, 0.99))
def test_more_confidence_is_a_lower_bound(seed: int, low: float, high: float) -> None:
    scored = items(seed)
    drawn = composite(scored, seed=1)
    assert drawn.lower(high) <= drawn.lower(low)


def test_the_bound_is_about_the_normal_one_for_independent_items() -> None:
    scored = items(3, count=1800, clusters=600)
    variance = 0.0
    for dimension, weight in DIMENSION_WEIGHTS.items():
        differences = [item.candidate - item.generator for item in scored if item.dimension == dimension]
        mean = sum(differences) / len(differences)
        spread = sum((value - mean) ** 2 for value in differences) / (len(differences) - 1)
        variance += weight**2 * spread / len(differences)
    assert math.isclose(margin(scored, seed=7), 1.645 * math.sqrt(variance), rel_tol=0.15)


def test_items_that_rise_together_widen_the_bound() -> None:
    rng = random.Random(5)
    luck = {f"c{number}": rng.choice([0.0, 1.0]) for number in range(20)}
    together = [item.model_copy(update={"candidate": luck[item.cluster]}) for item in items(5, count=600, clusters=20)]
    alone = [item.model_copy(update={"cluster": item.item_id}) for item in together]
    assert margin(together, seed=2) > 1.5 * margin(alone, seed=2)


def test_p_is_uniform_between_equal_models() -> None:
    values = [flip_signs(tabulate(items(seed, count=60)), seed=seed).better for seed in range(200)]
    assert 0.35 < sum(values) / len(values) < 0.65
    assert sum(value < 0.05 for value in values) <= 20  # 10 expected


def test_a_summary_is_over_exactly_the_items_given() -> None:
    scored = items(9, count=300)
    development = [item for item in scored if item.half == "development"]
    summary = summarise(development, seed=seed_of("a" * 64, "b" * 64))
    assert (summary.candidate, summary.generator) == scores(development)
    assert summary.difference == summary.candidate.composite - summary.generator.composite
    assert summary.ci_low <= summary.difference <= summary.ci_high
    assert summary != summarise(scored, seed=seed_of("a" * 64, "b" * 64))


def test_the_draws_are_those_of_every_machine_and_every_release() -> None:
    """Raw bits of PCG64 are promised to stay; a verdict of years ago must come out the same."""
    table = tabulate(items(4, count=120, clusters=20, shift=0.03))
    flipped = flip_signs(table, seed=11)
    assert (flipped.better, flipped.worse) == FLIPPED
    drawn = bootstrap(table, seed=11)
    assert (drawn["composite"].lower(0.95), drawn["knowledge"].upper(0.90)) == DRAWN


def test_p_agrees_with_all_assignments_counted() -> None:
    table = tabulate(items(6, count=60, clusters=10, shift=0.05))
    weights = np.array([DIMENSION_WEIGHTS[dimension] for dimension in DIMENSIONS])
    pull = ((table.candidate - table.generator) / table.counts.sum(axis=0)) @ weights
    signs = np.array(list(itertools.product([1, -1], repeat=10)))
    exact = np.mean(signs @ pull >= pull.sum() - 1e-12)
    assert math.isclose(flip_signs(table, seed=1, flips=100_000).better, exact, abs_tol=0.006)


def test_more_items_detect_less() -> None:
    few_items, many_items = (tabulate(items(3, count=count, clusters=count // 3)) for count in (90, 360))
    ratio = detectable(few_items, alpha=0.05, power=0.8) / detectable(many_items, alpha=0.05, power=0.8)
    assert math.isclose(ratio, 2, rel_tol=0.15)
    assert math.isinf(tabulate(items(3, clusters=1)).standard_error())


def test_a_ratio_is_bounded_around_itself() -> None:
    rng = random.Random(2)
    below = [rng.uniform(100, 900) for _ in range(40)]
    above = [value * rng.uniform(0.98, 1.04) for value in below]
    drawn = bootstrap_ratio(above, below, seed=5)
    assert drawn.lower(0.9) < sum(above) / sum(below) < drawn.upper(0.9)
    assert drawn.upper(0.9) - drawn.lower(0.9) < 0.02
