"""The order of training: a pure function of seed and shards, each shard as often as it should be."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from jupiter.trainer.packing import Encoded
from jupiter.trainer.rounds import ConsumedShard, RoundPlan, keep_window, laps_of, plan_round, shards_of_round


def shard(number: int) -> ConsumedShard:
    return ConsumedShard(sequence=number, shard_id=f"shard-{number}", manifest_key="", manifest_sha256="")


def samples(number: int, count: int = 6) -> tuple[Encoded, ...]:
    return tuple(
        Encoded(sample_id=f"{number}-{place}", tokens=tuple(range(number, number + 5 + place)))
        for place in range(count)
    )


def rounds(shards: int, *, passes: int, spacing: int) -> list[list[tuple[int, int]]]:
    """Return, per round, the sequences of its shards with their passes."""
    window: tuple[ConsumedShard, ...] = ()
    found = []
    for number in range(1, shards + 1):
        window = keep_window((*window, shard(number)), passes=passes, spacing=spacing)
        found.append([(s.sequence, n) for s, n in shards_of_round(window, passes=passes, spacing=spacing)])
    return found


def test_passes_are_spaced_over_newer_shards() -> None:
    assert rounds(4, passes=3, spacing=1) == [
        [(1, 1)],
        [(2, 1), (1, 1)],
        [(3, 1), (2, 1), (1, 1)],
        [(4, 1), (3, 1), (2, 1)],
    ]
    assert rounds(5, passes=2, spacing=2)[-1] == [(5, 1), (3, 1)]
    assert rounds(2, passes=3, spacing=0) == [[(1, 3)], [(2, 3)]]


@given(st.integers(1, 30), st.integers(1, 5), st.integers(0, 3))
def test_every_shard_makes_its_passes_and_no_more(shards: int, passes: int, spacing: int) -> None:
    made: Counter[int] = Counter()
    for participants in rounds(shards, passes=passes, spacing=spacing):
        for sequence, count in participants:
            made[sequence] += count
    later = (passes - 1) * spacing
    assert all(made[number] == passes for number in range(1, shards + 1 - later))
    assert max(made.values()) <= passes


def plan(*, seed: int, passes: int = 2, spacing: int = 1) -> RoundPlan:
    window = (shard(1), shard(2))
    laps = laps_of(shards_of_round(window, passes=passes, spacing=spacing))
    content = {"shard-1": samples(1), "shard-2": samples(2)}
    return plan_round(laps, content, seed=seed, tokens_per_step=20, sequence_length=12)


@given(st.integers(0, 1000))
def test_the_order_is_drawn_from_the_seed_alone(seed: int) -> None:
    assert plan(seed=seed) == plan(seed=seed)
    tokens = Counter(token for step in plan(seed=seed).steps for row in step for token in row.tokens)
    assert tokens == Counter(t for number in (1, 2) for s in samples(number) for t in s.tokens)


def test_another_seed_is_another_order_and_shards_are_mixed() -> None:
    assert plan(seed=1) != plan(seed=2)
    firsts = [row.tokens[0] for step in plan(seed=1).steps for row in step]
    assert firsts != sorted(firsts)


def test_passes_at_once_go_through_the_shard_in_different_orders() -> None:
    steps = plan(seed=0, passes=2, spacing=0).steps
    tokens = [token for step in steps for row in step for token in row.tokens]
    half = len(tokens) // 2
    assert Counter(tokens[:half]) == Counter(tokens[half:])
    assert tokens[:half] != tokens[half:]


def test_a_round_without_samples_has_no_steps() -> None:
    empty = plan_round([["shard-1"]], {"shard-1": ()}, seed=0, tokens_per_step=16, sequence_length=16)
    assert empty.steps == ()
