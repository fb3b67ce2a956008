"""Two models' answers, compared pair by pair by a judge that has passed its probes.

Owns: which pairs are judged, both orders of each, their scores, and when a judgement may not be used.
Does not know: how a judge answers (`kinds`), what the scores count for.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from jupiter.evaluator.judge.comparing import Comparison, Failed, Judge, JudgeTrouble, Progress, Sitting, Winner
from jupiter.evaluator.judge.parties import Party
from jupiter.evaluator.judge.probes import ask_probes, probe_comparisons
from jupiter.reports import JudgedPair, Judgement, JudgeProbe

__all__ = ["FAILED_SHARE_MAX", "Question", "judge_pairs", "judge_total"]

FAILED_SHARE_MAX = 0.1
"""Of the pairs asked. Failures are no fair sample: it is the odd answers that fail, and one of the models writes those.
A tenth that had all gone against one model would move the mean of the pairs by 0.05 where the models are equal."""
PAIRS_AT_A_TIME = 16
"""Between two looks at whether too many failed: an endpoint that died is not asked to the end."""

Side = Literal["candidate", "generator", "tie"]
POINTS: Mapping[Side, float] = {"candidate": 1.0, "tie": 0.5, "generator": 0.0}


@dataclass(frozen=True, kw_only=True)
class Question:
    """What both models were asked."""

    item_id: str
    cluster: str
    """The document group of the item."""
    text: str
    passage: str = ""


def judge_total(judge: Judge, questions: int) -> int:
    """Return how many comparisons `judge_pairs` makes at most, for the progress shown."""
    return probe_comparisons() + 2 * min(questions, judge.pairs_max)


def judge_pairs(
    judge: Judge,
    questions: Sequence[Question],
    candidate_answers: Mapping[str, str],
    generator_answers: Mapping[str, str],
    *,
    candidate: Party,
    generator: Party,
    progress: Progress,
) -> Judgement:
    """Probe the judge, then let it compare the answers (by item id). Blocks: call it in a worker thread.

    Whatever is wrong with the judge makes the judgement unusable, with the reason and without pairs. Raises what
    `progress` raises, and ValueError when a question lacks an answer.
    """
    for question in questions:
        if question.item_id not in candidate_answers or question.item_id not in generator_answers:
            raise ValueError(f"item {question.item_id} was not answered by both models: there is nothing to compare")
    try:
        conflict = judge.conflict(candidate) or judge.conflict(generator)
        if conflict:
            return Judgement(judge=judge.name, usable=False, reason=conflict)
        if not questions:
            return Judgement(judge=judge.name, usable=False, reason="there is no pair of answers to judge")
        with judge.sitting() as sitting:
            probes = ask_probes(sitting, progress)
            name = f"{judge.name} ({sitting.identity})" if sitting.identity else judge.name
            failed = [probe for probe in probes if not probe.passed]
            if failed:
                return Judgement(judge=name, usable=False, reason=_reason(failed), probes=probes)
            pairs = _Pairs(sitting, _chosen(questions, judge.pairs_max), candidate_answers, generator_answers)
            pairs.judge_all(progress)
            return pairs.judgement(name, probes)
    except JudgeTrouble as error:
        return Judgement(judge=judge.name, usable=False, reason=str(error))


def _reason(failed: Sequence[JudgeProbe]) -> str:
    return "; ".join(f"failed the probe {probe.name}: {probe.detail}" for probe in failed)


def _chosen(questions: Sequence[Question], pairs_max: int) -> list[Question]:
    """Return at most `pairs_max` of the questions, by a hash of their ids: the same ones whatever was answered."""
    return sorted(questions, key=lambda question: hashlib.sha256(question.item_id.encode()).digest())[:pairs_max]


class _Pairs:
    """The pairs of one judgement and what became of them."""

    def __init__(
        self,
        sitting: Sitting,
        questions: Sequence[Question],
        candidate_answers: Mapping[str, str],
        generator_answers: Mapping[str, str],
    ) -> None:
        self._sitting, self._questions = sitting, questions
        self._candidate, self._generator = candidate_answers, generator_answers
        self._judged: dict[str, JudgedPair] = {}
        self._failures: list[Failed] = []
        # The same answer twice is a tie whoever judges: it is not asked.
        self._asked = [
            question
            for question in questions
            if candidate_answers[question.item_id] != generator_answers[question.item_id]
        ]

    @property
    def _too_many_failed(self) -> bool:
        return len(self._failures) > math.floor(FAILED_SHARE_MAX * len(self._asked))

    def judge_all(self, progress: Progress) -> None:
        """Judge every pair in both orders, until too many have failed."""
        asked = {question.item_id for question in self._asked}
        for question in self._questions:
            if question.item_id not in asked:
                self._judged[question.item_id] = _pair(question, "tie", "tie")
        progress(2 * (len(self._questions) - len(asked)))
        for start in range(0, len(self._asked), PAIRS_AT_A_TIME):
            self._judge(self._asked[start : start + PAIRS_AT_A_TIME], progress)
            if self._too_many_failed:
                return

    def _judge(self, questions: Sequence[Question], progress: Progress) -> None:
        forward = [
            Comparison(
                question=question.text,
                passage=question.passage,
                first=self._candidate[question.item_id],
                second=self._generator[question.item_id],
            )
            for question in questions
        ]
        winners = self._sitting.compare([*forward, *(comparison.swapped() for comparison in forward)], progress)
        count = len(questions)
        for question, one, other in zip(questions, winners[:count], winners[count:], strict=True):
            failed = next((winner for winner in (one, other) if isinstance(winner, Failed)), None)
            if failed is not None:
                self._failures.append(failed)
            elif not isinstance(one, Failed) and not isinstance(other, Failed):
                forward_side = _side(one, first="candidate", second="generator")
                swapped_side = _side(other, first="generator", second="candidate")
                self._judged[question.item_id] = _pair(question, forward_side, swapped_side)

    def judgement(self, name: str, probes: tuple[JudgeProbe, ...]) -> Judgement:
        """Return the pairs in the order of the item ids, or why they may not be used."""
        if self._too_many_failed:
            reason = (
                f"{len(self._failures)} of {len(self._asked)} pairs got no verdict, more than "
                f"{FAILED_SHARE_MAX:.0%} (the rest was not asked); the first: {self._failures[0].reason}"
            )
            return Judgement(judge=name, usable=False, reason=reason, probes=probes, failed_pairs=len(self._failures))
        pairs = tuple(self._judged[item_id] for item_id in sorted(self._judged))
        return Judgement(judge=name, usable=True, probes=probes, pairs=pairs, failed_pairs=len(self._failures))


def _side(winner: Winner, *, first: Side, second: Side) -> Side:
    if winner == "tie":
        return "tie"
    return first if winner == "first" else second


def _pair(question: Question, forward: Side, swapped: Side) -> JudgedPair:
    score = (POINTS[forward] + POINTS[swapped]) / 2
    return JudgedPair(
        item_id=question.item_id,
        cluster=question.cluster,
        forward=forward,
        swapped=swapped,
        candidate=score,
        generator=1 - score,
    )
