"""What the tests of this folder share: a judge at an endpoint, two parties, questions and their answers."""

from __future__ import annotations

from collections.abc import Mapping

from jupiter.config import ClusterConfig
from jupiter.config.sections import EvaluatorSection, JudgeSection
from jupiter.evaluator.judge import Judge, Party, Question, judge_pairs, open_judge
from jupiter.reports import Judgement

__all__ = ["CANDIDATE", "GENERATOR", "GOOD", "LOOP", "QUESTIONS", "judge_at", "judged", "no_progress"]

CANDIDATE = Party(role="candidate", names=frozenset({"checkpoint-1"}), weights=frozenset({"1" * 64}))
GENERATOR = Party(role="generator", names=frozenset({"generator_v1"}), weights=frozenset({"2" * 64}))

QUESTIONS = tuple(
    Question(item_id=f"health-{number}", cluster=f"group{number // 2}", text=f"What is a {noun}?")
    for number, noun in enumerate(("pump", "wheel", "mirror", "hammer", "bridge", "candle"))
)
GOOD = {
    question.item_id: f"A {question.text.split()[-1][:-1]} is a tool with a clear use. People have known it for long."
    for question in QUESTIONS
}
LOOP = {
    question.item_id: f"A {question.text.split()[-1][:-1]} is a tool is a tool is a tool is a tool is a tool is a tool"
    for question in QUESTIONS
}


def no_progress(count: int) -> None:
    """Count nothing."""


def judge_at(
    url: str, *, pairs_max: int = 100, timeout_s: float = 20, in_flight: int = 4, api_key_env: str = "", key: str = ""
) -> Judge:
    config = ClusterConfig(
        judge=JudgeSection(
            kind="openai",
            url=url,
            model="the-judge",
            pairs_max=pairs_max,
            timeout_s=timeout_s,
            requests_in_flight_max=in_flight,
            api_key_env=api_key_env,
        ),
        evaluator=EvaluatorSection(seed=7),
    )
    judge = open_judge(config, {api_key_env: key} if api_key_env else {})
    assert judge is not None
    return judge


def judged(
    judge: Judge,
    *,
    candidate_answers: Mapping[str, str] = GOOD,
    generator_answers: Mapping[str, str] = LOOP,
    candidate: Party = CANDIDATE,
    generator: Party = GENERATOR,
) -> Judgement:
    """Let the judge compare the answers to all questions."""
    return judge_pairs(
        judge,
        QUESTIONS,
        candidate_answers,
        generator_answers,
        candidate=candidate,
        generator=generator,
        progress=no_progress,
    )
