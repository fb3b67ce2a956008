"""After the flip: a version whose first shards fall behind goes, with its figures; one that began well stays."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jupiter.config.sections import DiversitySection
from jupiter.controller.aftermath import Failure, failure_of
from jupiter.ledger import LedgerEntry
from jupiter.records import canonical_json, digest_of
from tests.unit.controller.cases import first_entry
from tests.unit.controller.shards import collapsed, healthy, ids, shard, without_texts

SETTINGS = DiversitySection()
FIRST = SETTINGS.aftermath_shards


def promoted(**changes: Any) -> LedgerEntry:
    fields = {"sequence": 2, "action": "promoted", "version": 2, "previous_version": 1, "previous_hash": "1" * 64}
    return first_entry(**(fields | changes))


def after(*shards: Any, old: int = 8) -> Failure | None:
    return failure_of([*healthy(old), *shards], promoted(), SETTINGS)


def test_a_version_as_good_as_the_one_before_stays() -> None:
    wrong = 0
    for seed in range(150):
        shards = [*healthy(12, seed=seed), *healthy(FIRST, seed=1_000 + seed, start=12, version=2)]
        wrong += failure_of(shards, promoted(), SETTINGS) is not None
    assert wrong <= 1


def test_less_accepted_than_chance_and_the_bound_allow_is_a_failure_with_its_figures() -> None:
    new = [shard(8 + number, version=2, acceptance=0.25) for number in range(FIRST)]
    failure = after(*new)
    assert failure is not None
    assert "25.0% of its samples are accepted, of version 1 50.0% were" in failure.reason
    assert "bound 10.0%" in failure.reason
    assert (failure.version, failure.previous_version) == (2, 1)
    assert list(failure.shards) == ids(new)
    assert list(failure.previous_shards) == ids(healthy(8)[-FIRST:])
    assert (failure.acceptance.accepted, failure.acceptance.eligible) == (32 * FIRST, 128 * FIRST)
    assert 0.19 < failure.acceptance_drop_lower < 0.25
    assert {figure.name for figure in failure.figures} >= {"coverage.once", "distinct_2", "repeats"}
    assert Failure.model_validate(json.loads(canonical_json(failure))) == failure


def test_a_smaller_loss_of_acceptance_is_none() -> None:
    """7 points less, as in the demo's first promotion: 32 % and 25 %."""
    shards = [shard(number, acceptance=0.32) for number in range(8)]
    new = [shard(8 + number, version=2, acceptance=0.25) for number in range(FIRST)]
    assert failure_of([*shards, *new], promoted(), SETTINGS) is None


def test_a_loss_that_few_samples_show_by_chance_is_none() -> None:
    old = [shard(number, samples=8, acceptance=0.75) for number in range(8)]
    new = [shard(8 + number, version=2, samples=8, acceptance=0.5) for number in range(FIRST)]
    assert failure_of([*old, *new], promoted(), SETTINGS) is None
    worse = [shard(8 + number, version=2, samples=8, acceptance=0.125) for number in range(FIRST)]
    assert failure_of([*old, *worse], promoted(), SETTINGS) is not None


def test_nothing_accepted_at_all_is_a_failure() -> None:
    failure = after(*(without_texts(shard(8 + n, version=2, acceptance=0.0)) for n in range(FIRST)))
    assert failure is not None
    assert failure.reason.startswith(f"the first {FIRST} shards of version 2 fall behind: 0.0% of its samples")


def test_a_figure_past_its_bound_three_shards_running_is_a_failure() -> None:
    new = [shard(8 + number, version=2, coverage__once=0.1) for number in range(FIRST)]
    failure = after(*new)
    assert failure is not None
    assert "coverage of words that real passages hold once is 0.100, in the reference 0.476" in failure.reason
    assert "accepted" not in failure.reason


def test_a_version_that_repeats_what_it_was_trained_on_is_a_failure() -> None:
    failure = after(*(shard(8 + number, version=2, duplicates=0.6) for number in range(FIRST)))
    assert failure is not None
    assert "0.600 of the samples repeat earlier ones, in the reference 0.040" in failure.reason


def test_a_figure_past_its_bound_at_the_last_shard_only_is_left_to_the_breaker() -> None:
    good = [shard(8 + number, version=2) for number in range(FIRST - 1)]
    assert after(*good, shard(20, version=2, synthetic__distinct_2=0.3)) is None


@pytest.mark.parametrize("count", range(FIRST))
def test_too_few_shards_decide_nothing(count: int) -> None:
    assert after(*collapsed(count, start=8, version=2)) is None


def test_without_two_shards_of_the_old_version_there_is_nothing_to_compare_with() -> None:
    assert after(*collapsed(FIRST, start=8, version=2), old=1) is None


def test_the_answer_never_changes_after_the_first_shards() -> None:
    began_well = healthy(FIRST, start=8, version=2)
    assert after(*began_well, *collapsed(10, start=30, version=2)) is None
    began_badly = collapsed(FIRST, start=8, version=2)
    failure = after(*began_badly)
    assert failure is not None
    # Later shards of the new version, and late ones of the old, change nothing.
    assert after(*began_badly, *healthy(10, start=30, version=2), *collapsed(3, start=50)) == failure
    assert after(began_badly[0], *collapsed(3, start=50), *began_badly[1:]) == failure


@pytest.mark.parametrize(
    "live",
    [
        first_entry(),
        promoted(action="rolled_back", version=2),
        promoted(version=3),
    ],
)
def test_only_the_promotion_that_made_the_shards_is_watched(live: LedgerEntry) -> None:
    shards = [*healthy(8), *collapsed(FIRST, start=8, version=2)]
    assert failure_of(shards, live, SETTINGS) is None


def test_shards_of_an_older_release_are_passed_over() -> None:
    old = [
        one.model_copy(update={"diversity": {}, "shard_id": digest_of("old", n)}) for n, one in enumerate(healthy(5))
    ]
    new = collapsed(FIRST, start=8, version=2)
    assert failure_of([*old, *new], promoted(), SETTINGS) is None
    with_figures = failure_of([*healthy(8), *old, *new], promoted(), SETTINGS)
    assert with_figures == after(*new)
