"""The laws of the mixer."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from jupiter.curator.mix import RATIO_PERCENT_MAX, RATIO_PERCENT_MIN, Mixed, Portion, mix


def portions(prefix: str, tokens: list[int]) -> list[Portion]:
    return [Portion(f"{prefix}{number}", count) for number, count in enumerate(tokens)]


TOKENS = st.lists(st.integers(1, 400), max_size=40)
CASES = st.tuples(TOKENS, TOKENS, st.lists(st.integers(0, 6), max_size=40), st.integers(1, 5), st.floats(0.30, 0.40))
Case = tuple[list[int], list[int], list[int], int, float]


def mixed(case: Case) -> tuple[Mixed, list[Portion], list[Portion], dict[str, int]]:
    synthetic, real = portions("s", case[0]), portions("r", case[1])
    uses = {portion.sample_id: count for portion, count in zip(real, case[2], strict=False)}
    return mix(synthetic, real, uses=uses, target=case[4], repeats_max=case[3]), synthetic, real, uses


@given(CASES)
@settings(max_examples=300)
def test_the_ratio_of_every_shard_that_is_not_empty_is_within_bounds(case: Case) -> None:
    outcome, synthetic, real, _ = mixed(case)
    tokens = {portion.sample_id: portion.tokens for portion in (*synthetic, *real)}
    real_tokens = sum(tokens[sample_id] for sample_id in outcome.real)
    all_tokens = real_tokens + sum(tokens[sample_id] for sample_id in outcome.synthetic)
    if outcome.outcome == "mixed":
        assert RATIO_PERCENT_MIN * all_tokens <= 100 * real_tokens <= RATIO_PERCENT_MAX * all_tokens
        assert outcome.synthetic
        assert outcome.real
    else:
        assert not outcome.synthetic
        assert not outcome.real


@given(CASES)
@settings(max_examples=300)
def test_a_batch_waits_only_where_real_data_is_used_up_and_is_left_out_only_where_no_real_sample_fits(
    case: Case,
) -> None:
    outcome, synthetic, real, uses = mixed(case)
    usable = [portion.tokens for portion in real if uses.get(portion.sample_id, 0) < case[3]]
    if outcome.outcome == "hold":
        assert not real or len(usable) < len(real)
        assert 100 * sum(usable) < RATIO_PERCENT_MIN * (sum(usable) + synthetic[0].tokens)
    if outcome.outcome == "nothing_fits":
        best = synthetic[0].tokens
        assert not any(
            RATIO_PERCENT_MIN * (one + best) <= 100 * one <= RATIO_PERCENT_MAX * (one + best) for one in usable
        )


@given(CASES)
@settings(max_examples=300)
def test_nothing_is_invented_doubled_or_lost(case: Case) -> None:
    outcome, synthetic, real, _ = mixed(case)
    assert set(outcome.real) <= {portion.sample_id for portion in real}
    assert len(set(outcome.real)) == len(outcome.real)
    if outcome.outcome == "hold":
        assert not outcome.trimmed
    else:
        # Best first, so what is trimmed is the end.
        assert outcome.synthetic + outcome.trimmed == tuple(portion.sample_id for portion in synthetic)


@given(CASES)
@settings(max_examples=200)
def test_no_real_sample_is_used_more_often_than_allowed_and_the_same_input_gives_the_same_shard(case: Case) -> None:
    outcome, synthetic, real, uses = mixed(case)
    assert all(uses.get(sample_id, 0) < case[3] for sample_id in outcome.real)
    again = mix(synthetic, list(reversed(real)), uses=uses, target=case[4], repeats_max=case[3])
    assert again == outcome


@given(st.lists(st.integers(20, 2_000), min_size=1, max_size=30), st.integers(1, 4))
@settings(max_examples=100)
def test_over_a_run_the_repeats_are_bounded_and_unused_samples_come_first(batches: list[int], repeats_max: int) -> None:
    real = portions("r", [10] * 30)
    uses: Counter[str] = Counter()
    for number, tokens in enumerate(batches):
        synthetic = portions(f"b{number}-", [10] * (tokens // 10))
        outcome = mix(synthetic, real, uses=uses, target=0.35, repeats_max=repeats_max)
        uses.update(outcome.real)
        spread = [uses[portion.sample_id] for portion in real]
        assert max(spread) <= repeats_max
        assert max(spread) - min(spread) <= 1
        if outcome.outcome == "hold":
            assert min(spread) == repeats_max


def test_without_synthetic_samples_the_shard_is_empty_whatever_real_data_there_is() -> None:
    assert mix([], portions("r", [10]), uses={}, target=0.35, repeats_max=4) == Mixed(outcome="empty")


def test_without_usable_real_data_it_holds() -> None:
    synthetic = portions("s", [10, 10])
    assert mix(synthetic, [], uses={}, target=0.35, repeats_max=4).outcome == "hold"
    assert mix(synthetic, portions("r", [10]), uses={"r0": 4}, target=0.35, repeats_max=4).outcome == "hold"


def test_when_real_data_is_short_the_worst_synthetic_samples_are_trimmed() -> None:
    outcome = mix(portions("s", [20] * 10), portions("r", [15, 15]), uses={}, target=0.35, repeats_max=4)
    assert outcome.synthetic == ("s0", "s1", "s2")
    assert len(outcome.real) == 2
    assert outcome.trimmed == tuple(f"s{number}" for number in range(3, 10))


def test_one_long_real_sample_is_found_where_a_short_one_would_leave_a_gap() -> None:
    outcome = mix(portions("s", [90]), portions("r", [30, 50]), uses={}, target=0.35, repeats_max=4)
    assert (outcome.outcome, outcome.real) == ("mixed", ("r1",))


def test_two_short_real_samples_are_found_where_a_longer_one_would_leave_a_gap() -> None:
    for real in ([40, 30, 30], [30, 40, 30], [30, 30, 40]):
        outcome = mix(portions("s", [100]), portions("r", real), uses={}, target=0.35, repeats_max=4)
        assert outcome.outcome == "mixed"
        assert sum(real[int(sample_id[1:])] for sample_id in outcome.real) == 60


def test_samples_that_every_real_one_is_too_long_for_are_left_out_and_said_to_be() -> None:
    outcome = mix(portions("s", [10, 10]), portions("r", [1_000]), uses={}, target=0.35, repeats_max=4)
    assert outcome == Mixed(outcome="nothing_fits", trimmed=("s0", "s1"))


def test_real_data_that_is_used_up_but_for_a_rest_is_waited_for_and_a_small_corpus_is_not() -> None:
    synthetic, real = portions("s", [90, 10]), portions("r", [50, 5])
    assert mix(synthetic, real, uses={"r0": 4}, target=0.35, repeats_max=4) == Mixed(outcome="hold")
    assert mix(synthetic, real[1:], uses={}, target=0.35, repeats_max=4).outcome == "nothing_fits"
