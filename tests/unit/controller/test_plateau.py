"""When the cycle has hit its ceiling, and what is named as lifting it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupiter.config.sections import SelfImprovementSection
from jupiter.controller.plateau import Facts, Plateau, Point, plateau, points_of
from jupiter.controller.trends import rise_p_value, slope
from jupiter.events import EvaluationCompleted
from jupiter.records import digest_of

N = 8
SETTINGS = SelfImprovementSection(plateau_evaluations=N, improvement_threshold=0.05)
NOTHING = Facts(training_documents=100)
HALF_WIDTH = 0.03
UNEXPLAINED = "a larger student (trainer.student), or documents of another kind"


def _points(differences: Sequence[float], *, half_width: float = HALF_WIDTH) -> list[Point]:
    return [
        Point(step=50 * number, difference=value, ci_low=value - half_width, ci_high=value + half_width)
        for number, value in enumerate(differences, start=1)
    ]


def _found(differences: Sequence[float], facts: Facts = NOTHING, *, half_width: float = HALF_WIDTH) -> Plateau | None:
    return plateau(_points(differences, half_width=half_width), facts, SETTINGS)


def _actions(facts: Facts, *, level: float = 0.01, half_width: float = HALF_WIDTH) -> dict[str, str]:
    found = _found([level] * 12, facts, half_width=half_width)
    assert found is not None
    return {lift.action: lift.because for lift in found.lifts}


differences = st.floats(min_value=-1, max_value=1, allow_nan=False)


@given(st.lists(differences, min_size=N + 1, max_size=30, unique=True))
def test_a_series_that_rises_at_every_evaluation_is_never_a_plateau(values: list[float]) -> None:
    assert _found(sorted(values)) is None


@given(
    st.floats(min_value=0.01, max_value=0.05),
    st.lists(st.floats(min_value=-0.3, max_value=0.3), min_size=N + 1, max_size=30),
)
def test_a_rise_with_noise_smaller_than_its_steps_is_never_a_plateau(rise: float, noise: list[float]) -> None:
    """Noise of at most .3 steps each way: the order still tells of a rise, however wide the intervals are."""
    assert _found([rise * (place + off) for place, off in enumerate(noise)], half_width=1.0) is None


@given(differences, st.integers(min_value=N + 1, max_value=30))
def test_a_constant_series_is_a_plateau(value: float, count: int) -> None:
    found = _found([value] * count)
    assert found is not None
    assert (found.trend, found.gain, found.best, found.evaluations) == (0, 0, value, N)


@given(st.lists(differences, max_size=N))
def test_too_few_points_are_none(values: list[float]) -> None:
    assert _found(values) is None


@given(st.lists(differences, min_size=N + 1, max_size=20))
def test_a_series_that_does_not_rise_and_has_no_new_best_is_a_plateau(values: list[float]) -> None:
    assert _found(sorted(values, reverse=True)) is not None


@given(st.lists(differences, min_size=N + 1, max_size=20), st.floats(min_value=0.001, max_value=0.5))
def test_a_jump_beyond_the_noise_at_the_end_is_no_plateau(values: list[float], more: float) -> None:
    top = max(values)
    assert _found([*values, top + HALF_WIDTH + more]) is None


@given(st.lists(st.integers(min_value=-100, max_value=100), min_size=N + 1, max_size=20), st.integers(-50, 50))
def test_only_differences_among_the_points_matter(values: list[int], shift: int) -> None:
    here, there = (_found([(value + by) / 1024 for value in values]) for by in (0, shift))
    assert (here is None) == (there is None)
    if here and there:
        assert (here.gain, here.trend, here.rise_p_value) == (there.gain, there.trend, there.rise_p_value)


@given(st.permutations(range(N + 1)), st.lists(differences, max_size=10))
def test_what_was_longer_ago_cannot_hide_a_plateau(order: list[int], earlier: list[float]) -> None:
    values = [place / 1000 for place in order]
    if _found(values) is not None:
        assert _found([*earlier, *values]) is not None


def _share_found(rise: float, *, runs: int = 2_000, points: int = 16) -> float:
    """Return how often a plateau is found where single evaluations have the noise that their intervals say."""
    rng = random.Random(3)
    found = 0
    for _ in range(runs):
        series = [rise * place + rng.gauss(0, HALF_WIDTH / 1.96) for place in range(points)]
        found += _found(series) is not None
    return found / runs


def test_a_constant_noisy_series_is_a_plateau_and_a_rising_noisy_one_is_not() -> None:
    assert _share_found(0.0) > 0.8
    assert _share_found(HALF_WIDTH / 4) < 0.05
    assert _share_found(HALF_WIDTH / 2) < 0.001


@settings(max_examples=30)
@given(st.integers(min_value=2, max_value=6))
def test_the_rise_p_value_is_the_share_of_orders_that_rise_as_much(size: int) -> None:
    def concordant(values: Sequence[int]) -> int:
        return sum(values[i] < values[j] for i in range(size) for j in range(i + 1, size))

    orders = list(permutations(range(size)))
    for order in orders[:: max(1, len(orders) // 20)]:
        share = sum(concordant(other) >= concordant(order) for other in orders) / len(orders)
        assert rise_p_value(order) == pytest.approx(share)


def test_the_rise_p_value_agrees_with_the_published_table() -> None:
    """Kendall 1975, table A1: n = 8, S = 16 (22 concordant, 6 discordant pairs) has p = .031."""
    rising = [1, 2, 3, 7, 8, 4, 5, 6]
    assert rise_p_value(rising) == pytest.approx(0.031, abs=5e-4)
    assert rise_p_value([1.0] * 8) >= 0.5


@given(
    st.floats(min_value=-5, max_value=5), st.floats(min_value=-5, max_value=5), st.integers(min_value=3, max_value=30)
)
def test_the_slope_is_that_of_a_line_with_an_outlier(rise: float, level: float, size: int) -> None:
    line = [level + rise * place for place in range(size)]
    assert slope(line) == pytest.approx(rise, abs=1e-9)
    if size >= 8:
        line[size // 2] = 1e6
        assert slope(line) == pytest.approx(rise, abs=1e-9)


def test_real_data_that_is_spent_asks_for_documents() -> None:
    spent = Facts(training_documents=40, real_uses_left=12, real_uses_allowed=4_000)
    assert _actions(spent) == {"publish more documents": "12 of 4,000 uses of real samples are left"}
    plenty = Facts(training_documents=40, real_uses_left=3_000, real_uses_allowed=4_000)
    assert "publish more documents" not in _actions(plenty)


def test_samples_that_repeat_earlier_ones_ask_for_documents_too() -> None:
    facts = Facts(
        training_documents=40,
        real_uses_left=1,
        real_uses_allowed=100,
        candidates=1_000,
        accepted=600,
        dropped={"near_duplicate_earlier": 150, "not_novel": 50, "ungrounded_words": 200},
    )
    (because,) = _actions(facts).values()
    assert because.split("; ") == [
        "1 of 100 uses of real samples are left",
        "50% of the refused samples only repeat what the 40 documents gave before",
    ]


def test_bad_samples_ask_for_a_stronger_generator() -> None:
    facts = Facts(
        training_documents=40,
        candidates=1_000,
        accepted=150,
        dropped={"ungrounded_words": 700, "low_quality": 140, "not_novel": 10},
    )
    assert _actions(facts) == {
        "a stronger base generator (generator.base_model), or other tasks in the domain": "the curator accepts 15% of "
        "the samples; most are refused as ungrounded_words (700)"
    }


def test_a_loss_that_has_levelled_off_asks_for_a_larger_student() -> None:
    level = (2.1, 2.302, 2.299, 2.301, 2.298, 2.3, 2.3, 2.301, 2.299)
    found = _actions(Facts(training_documents=40, losses=level, student_is_base=True))
    because = "the training loss has levelled off at 2.30, and the student has the size of the base model"
    assert found == {"a larger student (trainer.student)": because}
    assert "base model" not in "".join(_actions(Facts(training_documents=40, losses=level)).values())


def test_a_loss_that_falls_without_effect_asks_for_documents() -> None:
    falling = tuple(2.4 - 0.05 * number for number in range(8))
    found = _actions(Facts(training_documents=40, losses=falling))
    assert list(found) == ["publish more documents"]
    assert "2.40 → 2.05" in found["publish more documents"]


def test_losses_too_few_or_rising_say_nothing() -> None:
    for losses in ((2.0, 2.0, 2.0), tuple(2.0 + 0.1 * number for number in range(8)), (float("nan"),) * 8):
        assert list(_actions(Facts(training_documents=40, losses=losses))) == [UNEXPLAINED]


def test_noise_that_hides_the_threshold_asks_for_a_larger_benchmark() -> None:
    found = _actions(Facts(training_documents=40, benchmark_items=100), half_width=0.08)
    ((action, because),) = found.items()
    assert action == "a larger benchmark (benchmark_samples: about 413 items instead of 100)"
    assert because.startswith("a difference under 0.102 is seldom found with this one")
    unmeasured = _actions(NOTHING, half_width=0.08)
    assert list(unmeasured) == ["a larger benchmark (benchmark_samples)"]


def test_a_threshold_that_is_met_points_to_the_other_checks() -> None:
    because = "the best difference +0.070 reaches improvement_threshold +0.050, so the score is not what holds it back"
    assert _actions(NOTHING, level=0.07) == {"read the other checks of the last verdicts": because}


def test_a_sealed_half_that_is_used_up_asks_for_a_new_benchmark() -> None:
    most = SETTINGS.sealed_openings_max
    found = _actions(Facts(training_documents=40, sealed_openings=most))
    assert found == {
        "another benchmark (`jupiter publish --split held_out FILES`, then `jupiter benchmark renew`)": f"all {most} "
        "openings of the sealed half are used (sealed_openings_max): no candidate can be confirmed"
    }
    assert list(_actions(Facts(training_documents=40, sealed_openings=most - 1))) == [UNEXPLAINED]


def test_a_student_that_gets_worse_is_named() -> None:
    found = _found([0.02] * 4 + [-0.01 * place for place in range(N)])
    assert found is not None
    assert found.trend < -HALF_WIDTH
    assert "gets worse" in found.lifts[0].because


def test_the_lines_are_what_status_shows() -> None:
    found = _found([0.0, 0.02, 0.01, 0.015, 0.012, 0.011, 0.016, 0.01, 0.013, 0.012, 0.011])
    assert found is not None
    finding, lift = found.lines
    assert finding == found.line
    assert finding == (
        "plateau: no gain beyond noise in the last 8 evaluations (steps 200–550): trend -0.003, noise ±0.030, best "
        "difference +0.020 at step 100"
    )
    assert lift == f"would lift it: {UNEXPLAINED} (no measured figure stands out)"
    assert Plateau.model_validate_json(found.model_dump_json()) == found


def test_points_are_those_against_one_generator_on_one_benchmark() -> None:
    events = [
        EvaluationCompleted(
            domain="domain_a",
            evaluation_id=digest_of("evaluation", step),
            checkpoint_id=digest_of("checkpoint", step),
            run="run1",
            step=step,
            generator_version=version,
            benchmark_digest=digest_of(benchmark),
            items=100,
            candidate_score=0.5 + difference,
            generator_score=0.5,
            difference=difference,
            ci_low=difference - 0.1,
            ci_high=difference + 0.1,
            manifest_key="evaluations/x/manifest.json",
            manifest_sha256=digest_of("manifest", step),
        )
        for step, version, benchmark, difference in (
            (50, 1, "old", 0.01),
            (100, 1, "new", 0.02),
            (150, 2, "new", 0.03),
            (200, 2, "new", 0.04),
        )
    ]
    found = points_of(events, generator_version=2, benchmark_digest=digest_of("new"))
    assert [(point.step, point.difference) for point in found] == [(150, 0.03), (200, 0.04)]
    assert points_of(events, generator_version=3, benchmark_digest=digest_of("new")) == ()
