"""The laws of the packer: every token once, labels aligned, nothing too long, order kept."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupiter.trainer.packing import Encoded, divide, pack

LENGTH = 32


@st.composite
def encoded(draw: st.DrawFn, longest: int = LENGTH) -> Encoded:
    tokens = draw(st.lists(st.integers(0, 999), min_size=2, max_size=longest))
    learned_from = draw(st.integers(1, len(tokens) - 1))
    return Encoded(sample_id=str(draw(st.integers())), tokens=tuple(tokens), learned_from=learned_from)


samples_strategy = st.lists(encoded(), max_size=40)


@given(samples_strategy)
def test_every_token_stands_once_in_order(samples: list[Encoded]) -> None:
    rows = pack(samples, length=LENGTH)
    assert [t for row in rows for t in row.tokens] == [t for sample in samples for t in sample.tokens]


@given(samples_strategy)
def test_no_row_is_longer_than_the_length_and_none_could_be_joined(samples: list[Encoded]) -> None:
    rows = pack(samples, length=LENGTH)
    assert all(0 < len(row.tokens) == sum(row.lengths) <= LENGTH for row in rows)
    for left, right in itertools.pairwise(rows):
        assert len(left.tokens) + right.lengths[0] > LENGTH


@given(samples_strategy)
def test_each_sample_counts_its_own_positions(samples: list[Encoded]) -> None:
    for row in pack(samples, length=LENGTH):
        assert list(row.positions) == [position for length in row.lengths for position in range(length)]


@given(samples_strategy)
def test_learned_are_exactly_the_tokens_of_answers_each_from_its_own_sample(samples: list[Encoded]) -> None:
    rows = pack(samples, length=LENGTH)
    assert [t for row in rows for t in row.targets] == [t for s in samples for t in s.tokens[s.learned_from :]]
    for row in rows:
        sample_of = [number for number, length in enumerate(row.lengths) for _ in range(length)]
        for place, target in zip(row.loss_at, row.targets, strict=True):
            assert row.tokens[place + 1] == target
            assert sample_of[place] == sample_of[place + 1]


@given(samples_strategy, st.integers(16, 200))
def test_steps_keep_every_sample_once_in_order_and_differ_by_less_than_the_longest(
    samples: list[Encoded], tokens_per_step: int
) -> None:
    steps = divide(samples, tokens_per_step=tokens_per_step)
    assert [sample for step in steps for sample in step] == samples
    assert all(steps)
    total = sum(len(sample.tokens) for sample in samples)
    share = total / max(1, round(total / tokens_per_step))
    for step in steps:
        assert abs(sum(len(sample.tokens) for sample in step) - share) <= max(LENGTH, share)


def test_a_sample_longer_than_a_row_is_an_error() -> None:
    with pytest.raises(ValueError, match="has 40 tokens, a row holds 32"):
        pack([Encoded(sample_id="a", tokens=tuple(range(40)))], length=LENGTH)


def test_a_sample_without_a_learned_token_is_a_mistake() -> None:
    with pytest.raises(AssertionError):
        Encoded(sample_id="a", tokens=(1, 2), learned_from=2)
