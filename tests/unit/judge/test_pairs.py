"""What the pairs are worth: both orders, ties, identical answers, failures, and which pairs are judged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupiter.evaluator.judge import Comparison, Failed, JudgeTrouble, Question, Winner, judge_pairs, judge_total
from jupiter.evaluator.judge.cases import CLOSE, FLATTERY, INSTRUCTION, KNOWN_GOOD, LONGER
from jupiter.evaluator.judge.comparing import Progress
from jupiter.evaluator.judge.parties import Party, party_of
from jupiter.records import BlobRef, Manifest
from tests.unit.judge.court import CANDIDATE, GENERATOR, GOOD, LOOP, QUESTIONS, judged

BETTER = {case.better for case in (*KNOWN_GOOD, *CLOSE, *FLATTERY, *INSTRUCTION, *LONGER)}


@dataclass(kw_only=True)
class PassingJudge:
    """A judge in this process that knows the probes, and decides about other pairs as the test says."""

    decide: Callable[[Comparison], Winner | Failed]
    pairs_max: int = 100
    computes_here: bool = False
    name: str = "a judge of the test"
    identity: str = ""
    trouble: str = ""
    compared: list[Comparison] = field(default_factory=list)

    def conflict(self, party: Party) -> str:
        return f"it is the {party.role}" if self.name in party.names else ""

    @contextmanager
    def sitting(self) -> Iterator[PassingJudge]:
        if self.trouble:
            raise JudgeTrouble(self.trouble)
        yield self

    def compare(self, comparisons: Sequence[Comparison], progress: Progress) -> list[Winner | Failed]:
        progress(len(comparisons))
        return [self._answer(comparison) for comparison in comparisons]

    def _answer(self, comparison: Comparison) -> Winner | Failed:
        if comparison.first == comparison.second:
            return "tie"
        if comparison.first in BETTER:
            return "first"
        if comparison.second in BETTER:
            return "second"
        self.compared.append(comparison)
        return self.decide(comparison)


WINNERS: list[Winner] = ["first", "second", "tie"]


@given(st.sampled_from(WINNERS), st.sampled_from(WINNERS))
def test_a_pair_scores_the_mean_of_both_orders(forward: Winner, swapped: Winner) -> None:
    judge = PassingJudge(decide=lambda comparison: forward if comparison.first == "c" else swapped)
    question = QUESTIONS[0]
    answers = {question.item_id: "c"}, {question.item_id: "g"}
    judgement = judge_pairs(
        judge, [question], *answers, candidate=CANDIDATE, generator=GENERATOR, progress=lambda _: None
    )
    (pair,) = judgement.pairs
    points = {"first": 1.0, "tie": 0.5, "second": 0.0}[forward] + {"first": 0.0, "tie": 0.5, "second": 1.0}[swapped]
    assert pair.candidate == points / 2
    assert pair.generator == 1 - points / 2
    assert pair.forward == {"first": "candidate", "second": "generator", "tie": "tie"}[forward]
    assert pair.swapped == {"first": "generator", "second": "candidate", "tie": "tie"}[swapped]


def test_which_side_an_answer_belongs_to_changes_nothing_but_the_sign() -> None:
    judge = PassingJudge(decide=lambda c: "first" if c.first in LOOP.values() else "second")
    one = judged(judge)
    other = judged(judge, candidate_answers=LOOP, generator_answers=GOOD)
    assert [pair.candidate for pair in one.pairs] == [0.0] * 6
    assert [pair.candidate for pair in other.pairs] == [1.0] * 6


def test_a_judge_that_prefers_a_place_among_the_pairs_favours_nobody() -> None:
    judgement = judged(PassingJudge(decide=lambda _: "first"))
    assert {(pair.forward, pair.swapped, pair.candidate) for pair in judgement.pairs} == {
        ("candidate", "generator", 0.5)
    }


def test_the_same_answer_of_both_is_a_tie_that_nobody_is_asked_about() -> None:
    judge = PassingJudge(decide=lambda _: "first")
    judgement = judged(judge, generator_answers=GOOD)
    assert judge.compared == []
    assert judgement.usable
    assert {(pair.forward, pair.swapped, pair.candidate) for pair in judgement.pairs} == {("tie", "tie", 0.5)}


def many(count: int) -> tuple[list[Question], dict[str, str], dict[str, str]]:
    questions = [Question(item_id=f"item{n}", cluster=f"group{n}", text=f"What is number {n}?") for n in range(count)]
    return (
        questions,
        {question.item_id: f"c {question.item_id}" for question in questions},
        {question.item_id: f"g {question.item_id}" for question in questions},
    )


def test_a_few_failed_pairs_are_left_out_and_counted() -> None:
    questions, candidate, generator = many(40)
    judge = PassingJudge(decide=lambda c: Failed("HTTP 500") if c.first in ("c item3", "g item8") else "tie")
    judgement = judge_pairs(
        judge, questions, candidate, generator, candidate=CANDIDATE, generator=GENERATOR, progress=lambda _: None
    )
    assert judgement.usable
    assert judgement.failed_pairs == 2
    assert {pair.item_id for pair in judgement.pairs} == {f"item{n}" for n in range(40)} - {"item3", "item8"}


def test_too_many_failed_pairs_leave_no_score_and_end_the_asking() -> None:
    questions, candidate, generator = many(40)
    judge = PassingJudge(decide=lambda _: Failed("no answer within 30 s"))
    judgement = judge_pairs(
        judge, questions, candidate, generator, candidate=CANDIDATE, generator=GENERATOR, progress=lambda _: None
    )
    assert not judgement.usable
    assert judgement.pairs == ()
    assert "16 of 40 pairs got no verdict, more than 10%" in judgement.reason
    assert judgement.reason.endswith("no answer within 30 s")
    assert len(judge.compared) == 32
    assert all(probe.passed for probe in judgement.probes)


def test_only_so_many_pairs_are_judged_and_they_are_always_the_same() -> None:
    questions, candidate, generator = many(40)

    def judged_items(order: Sequence[Question]) -> tuple[list[str], int]:
        counted = 0

        def progress(count: int) -> None:
            nonlocal counted
            counted += count

        judge = PassingJudge(decide=lambda _: "tie", pairs_max=10)
        judgement = judge_pairs(
            judge, order, candidate, generator, candidate=CANDIDATE, generator=GENERATOR, progress=progress
        )
        assert counted == judge_total(judge, len(order))
        return [pair.item_id for pair in judgement.pairs], len(judge.compared)

    items, compared = judged_items(questions)
    assert (len(items), compared) == (10, 20)
    assert judged_items(list(reversed(questions))) == (items, compared)


def test_a_question_that_one_model_did_not_answer_is_our_mistake() -> None:
    with pytest.raises(ValueError, match="item health-0 was not answered by both models"):
        judged(PassingJudge(decide=lambda _: "tie"), candidate_answers={})


def test_no_questions_and_a_judge_that_cannot_sit_are_unusable() -> None:
    nothing = judge_pairs(
        PassingJudge(decide=lambda _: "tie"),
        [],
        {},
        {},
        candidate=CANDIDATE,
        generator=GENERATOR,
        progress=lambda _: None,
    )
    assert (nothing.usable, nothing.reason) == (False, "there is no pair of answers to judge")

    absent = judged(PassingJudge(decide=lambda _: "tie", trouble="its model is gone"))
    assert (absent.usable, absent.reason, absent.pairs) == (False, "its model is gone", ())


def test_a_party_is_known_by_its_weights_and_names() -> None:
    def ref(name: str, sha256: str) -> BlobRef:
        return BlobRef(name=name, key=f"k/{name}", size=1, sha256=sha256 * 64)

    manifest = Manifest(
        kind="generator",
        domain="domain_a",
        work_id="domain_a-v3",
        created_at="2026-01-01T00:00:00Z",
        files=(
            ref("model/model.safetensors", "a"),
            ref("training_state.safetensors", "b"),
            ref("model/config.json", "c"),
        ),
        details={"version": 3, "name": "some/place/SmolLM2-135M"},
    )
    party = party_of("generator", manifest)
    assert party.weights == {"a" * 64}
    assert party.names == {"domain_a-v3", "generator_v3", "smollm2-135m"}
