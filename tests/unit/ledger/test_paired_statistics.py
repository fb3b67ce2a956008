"""The shared statistics: laws, and agreement with what is known."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupiter.reports import DIMENSION_WEIGHTS, DIMENSIONS, ItemResult, deciding, seed_of
from jupiter.statistics import paired, scores, summarise

few = settings(max_examples=20, deadline=None)


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
    result = paired(items(seed), seed=seed, confidence=0.95)
    assert result.lower <= result.difference <= result.upper
    assert 0 < result.p_value <= 1
    for dimension in DIMENSIONS:
        assert result.dimension_lower[dimension] <= result.dimension_upper[dimension]


@few
@given(st.integers(0, 10_000))
def test_exchanging_the_models_mirrors_the_difference(seed: int) -> None:
    there = items(seed)
    back = [item.model_copy(update={"candidate": item.generator, "generator": item.candidate}) for item in there]
    one, other = paired(there, seed=seed, confidence=0.95), paired(back, seed=seed, confidence=0.95)
    assert math.isclose(one.difference, -other.difference, abs_tol=1e-12)
    assert math.isclose(one.lower, -other.upper, abs_tol=1e-9)


@few
@given(seed=st.integers(0, 10_000), low=st.floats(0.6, 0.9), high=st.floats(0.9, 0.99))
def test_more_confidence_is_a_lower_bound(seed: int, low: float, high: float) -> None:
    scored = items(seed)
    assert paired(scored, seed=1, confidence=high).lower <= paired(scored, seed=1, confidence=low).lower


def test_the_bound_is_about_the_normal_one_for_independent_items() -> None:
    scored = items(3, count=1800, clusters=600)
    result = paired(scored, seed=7, confidence=0.95)
    variance = 0.0
    for dimension, weight in DIMENSION_WEIGHTS.items():
        differences = [item.candidate - item.generator for item in scored if item.dimension == dimension]
        mean = sum(differences) / len(differences)
        spread = sum((value - mean) ** 2 for value in differences) / (len(differences) - 1)
        variance += weight**2 * spread / len(differences)
    assert math.isclose(result.difference - result.lower, 1.645 * math.sqrt(variance), rel_tol=0.15)


def test_items_that_rise_together_widen_the_bound() -> None:
    rng = random.Random(5)
    luck = {f"c{number}": rng.choice([0.0, 1.0]) for number in range(20)}
    together = [item.model_copy(update={"candidate": luck[item.cluster]}) for item in items(5, count=600, clusters=20)]
    alone = [item.model_copy(update={"cluster": item.item_id}) for item in together]
    wide, narrow = (paired(each, seed=2, confidence=0.95) for each in (together, alone))
    assert wide.difference - wide.lower > 1.5 * (narrow.difference - narrow.lower)


def test_p_is_uniform_between_equal_models() -> None:
    values = [paired(items(seed, count=60), seed=seed, confidence=0.95).p_value for seed in range(200)]
    assert 0.35 < sum(values) / len(values) < 0.65
    assert sum(value < 0.05 for value in values) <= 20  # 10 expected


def test_a_report_sums_up_the_confirmation_half() -> None:
    scored = items(9, count=300)
    summary = summarise(scored, seed=seed_of("a" * 64, "b" * 64))
    candidate, generator = scores(deciding(scored))
    assert (summary.candidate, summary.generator) == (candidate, generator)
    assert summary.ci_low <= summary.difference <= summary.ci_high
    assert all(item.half == "confirmation" for item in deciding(scored))
