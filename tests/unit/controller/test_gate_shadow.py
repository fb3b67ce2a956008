"""The last stage: a good answerer that is a worse generator does not replace it."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupiter.controller.gate import Verdict
from jupiter.records import digest_of
from tests.unit.controller.cases import better, improvement, items
from tests.unit.controller.stages import SHADOW_ITEMS, decided, side, taken, unpassed

SCORED = items(better)


def beside(
    *, candidate: dict[str, Any] | None = None, incumbent: dict[str, Any] | None = None, **changes: Any
) -> Verdict:
    """The verdict on a candidate that passed everything else."""
    return decided(SCORED, shadow={"candidate": candidate, "incumbent": incumbent, **changes})


def figures(**changes: float) -> dict[str, Any]:
    return {"diversity": {**side("candidate").diversity, **{name.replace("__", "."): v for name, v in changes.items()}}}


def test_an_equal_generator_is_promoted() -> None:
    assert beside().decision == "PROMOTE"


def test_far_less_accepted_holds_and_says_for_what() -> None:
    verdict = beside(candidate={"accepted": taken(0.15), "dropped": {"grounding": 90, "length": 3}})
    assert (verdict.decision, unpassed(verdict)) == ("HOLD", ["shadow acceptance"])
    assert "most refused for grounding (90)" in verdict.reasons[0]


def test_somewhat_less_accepted_is_within_the_bound() -> None:
    assert beside(candidate={"accepted": taken(0.37)}).decision == "PROMOTE"


def test_nothing_accepted_is_rejected() -> None:
    """As a generator it is useless, whatever it answers: no second batch would show another thing."""
    verdict = beside(candidate={"accepted": taken(0), "dropped": {"repetition": SHADOW_ITEMS}})
    assert (verdict.decision, unpassed(verdict)) == ("REJECT", ["shadow acceptance"])


@pytest.mark.parametrize("accepted", [0, 4])
@pytest.mark.parametrize("candidate", [0.0, 0.4])
def test_beside_an_incumbent_of_which_next_to_nothing_is_accepted_it_holds(accepted: int, candidate: float) -> None:
    """Everything is as good as nothing: such a batch proves nothing, and never passes."""
    hardly = tuple(number < accepted for number in range(SHADOW_ITEMS))
    verdict = beside(candidate={"accepted": taken(candidate)}, incumbent={"accepted": hardly})
    assert verdict.decision == "HOLD"
    assert "shadow batch tells" in unpassed(verdict)


def test_who_cannot_generate_at_all_holds_with_the_reason() -> None:
    verdict = beside(failed="golden outputs differ from those recorded with the checkpoint")
    assert (verdict.decision, unpassed(verdict)) == ("HOLD", ["generates at all"])
    assert "golden outputs differ" in verdict.reasons[0]


def test_less_grounded_holds() -> None:
    assert beside(candidate={"grounding": 0.75}).decision == "PROMOTE", "within .05"
    verdict = beside(candidate={"grounding": 0.74})
    assert (verdict.decision, unpassed(verdict)) == ("HOLD", ["shadow grounding"])


def test_more_duplicates_hold() -> None:
    assert beside(candidate={"duplicates": 0.15}).decision == "PROMOTE", "within .10"
    verdict = beside(candidate={"duplicates": 0.16})
    assert (verdict.decision, unpassed(verdict)) == ("HOLD", ["shadow duplicates"])


@pytest.mark.parametrize("further", [-0.2, 0.2])
def test_further_from_the_real_data_in_either_direction_holds(further: float) -> None:
    """More varied than real text is as wrong as less varied (DESIGN §9)."""
    verdict = beside(candidate=figures(synthetic__distinct_4=0.5 + further))
    assert (verdict.decision, unpassed(verdict)) == ("HOLD", ["shadow diversity"])
    assert "distinct_4" in verdict.reasons[0]


def test_nearer_to_the_real_data_is_no_fault() -> None:
    far = figures(synthetic__distinct_4=0.2)
    assert beside(candidate=figures(synthetic__distinct_4=0.45), incumbent=far).decision == "PROMOTE"


def test_rare_words_no_longer_used_hold() -> None:
    verdict = beside(candidate=figures(coverage__once=0.1))
    assert unpassed(verdict) == ["shadow diversity"]
    assert "10.0% are used" in verdict.reasons[0]


def test_unmeasured_diversity_holds() -> None:
    verdict = beside(candidate={"diversity": {}})
    assert (verdict.decision, unpassed(verdict)) == ("HOLD", ["shadow diversity"])
    assert "not measured for the candidate" in verdict.reasons[0]


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"evaluation_id": digest_of("another")}, "about evaluation"),
        ({"clusters": (digest_of("document"),)}, "were judged"),
        ({"candidate": {"manifest_sha256": digest_of("shadow batch", "incumbent")}}, "one and the same batch"),
    ],
)
def test_batches_that_cannot_be_compared_are_invalid(changes: dict[str, Any], fault: str) -> None:
    verdict = beside(**changes)
    assert (verdict.decision, unpassed(verdict)) == ("INVALID", ["shadow batch sound"])
    assert fault in verdict.reasons[0]


def test_it_is_left_out_only_where_the_configuration_says_so() -> None:
    verdict = decided(SCORED, config=improvement(shadow_check=False))
    assert verdict.decision == "PROMOTE"
    assert not any(check.name.startswith("shadow") for check in verdict.checks)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), more=st.sets(st.integers(0, SHADOW_ITEMS - 1), max_size=30))
def test_more_accepted_never_turns_a_promotion_away(seed: int, more: set[int]) -> None:
    draw = random.Random(seed)
    accepted = tuple(draw.random() < 0.35 for _ in range(SHADOW_ITEMS))
    if beside(candidate={"accepted": accepted}).decision == "PROMOTE":
        raised = tuple(one or number in more for number, one in enumerate(accepted))
        assert beside(candidate={"accepted": raised}).decision == "PROMOTE"
