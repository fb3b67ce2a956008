"""The laws of dealing a step's rows to ranks: nothing lost, nothing twice, nobody waits for nobody."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from jupiter.trainer.packing import Encoded, Row, deal, pack

LENGTH = 32


@st.composite
def steps(draw: st.DrawFn) -> tuple[Row, ...]:
    samples = []
    for number in range(draw(st.integers(1, 25))):
        length = draw(st.integers(2, LENGTH))
        tokens = tuple(1000 * (number + 1) + place for place in range(length))  # every token is known again
        samples.append(Encoded(sample_id=str(number), tokens=tokens, learned_from=draw(st.integers(1, length - 1))))
    return pack(samples, length=LENGTH)


def learned_pairs(rows: tuple[Row, ...]) -> Counter[tuple[int, int]]:
    """Return what is learned: from which token, which next one."""
    return Counter(
        (row.tokens[at], target) for row in rows for at, target in zip(row.loss_at, row.targets, strict=True)
    )


def whole_samples(rows: tuple[Row, ...]) -> Counter[tuple[int, ...]]:
    found: Counter[tuple[int, ...]] = Counter()
    for row in rows:
        begin = 0
        for length in row.lengths:
            assert row.positions[begin : begin + length] == tuple(range(length))
            found[row.tokens[begin : begin + length]] += 1
            begin += length
    return found


@given(steps(), st.integers(1, 9))
def test_every_rank_gets_equally_many_rows_and_every_sample_is_in_one(rows: tuple[Row, ...], ranks: int) -> None:
    hands = deal(rows, ranks=ranks)
    assert len(hands) == ranks
    assert len({len(hand) for hand in hands}) == 1, "all meet in every pass"
    dealt = tuple(row for hand in hands for row in hand)
    idle = tuple(row for row in dealt if not row.targets)
    assert learned_pairs(dealt) == learned_pairs(rows)
    assert whole_samples(dealt) - whole_samples(idle) == whole_samples(rows)
    assert all(len(row.tokens) <= LENGTH for row in dealt)


@given(steps(), st.integers(1, 9))
def test_a_rank_idles_only_where_nothing_is_left_to_cut(rows: tuple[Row, ...], ranks: int) -> None:
    for hand in deal(rows, ranks=ranks):
        if any(not row.targets for row in hand):
            assert all(len(row.lengths) == 1 for row in hand)


@given(steps())
def test_one_rank_gets_the_rows_that_there_are(rows: tuple[Row, ...]) -> None:
    (hand,) = deal(rows, ranks=1)
    assert Counter(hand) == Counter(rows)


def test_two_ranks_get_about_equally_many_tokens() -> None:
    """Three rows of which the last is short, as most steps end."""
    rows = pack([Encoded(sample_id=str(n), tokens=tuple(range(8))) for n in range(10)], length=LENGTH)
    first, second = (sum(len(row.tokens) for row in hand) for hand in deal(rows, ranks=2))
    assert (first, second) == (40, 40)
