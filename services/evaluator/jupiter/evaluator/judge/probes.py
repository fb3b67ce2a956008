"""Questions of which the right answer is known, asked of a judge before each use.

Owns: the probes and their bars. Does not know: how a judge answers (`kinds`).

Every case is asked in both orders. Each bar allows one slip: a good judge at temperature 0 still slips now and then,
since servers batch requests and so round differently. It does not let chance through: who tosses a coin passes
`known_good` in 0.3 % and each probe of six verdicts in 11 % of all tries, all four together in 4 of a million.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from jupiter.evaluator.judge.cases import CLOSE, FLATTERY, INSTRUCTION, KNOWN_GOOD, LONGER, SAME, Case
from jupiter.evaluator.judge.comparing import Comparison, Failed, Progress, Sitting, Winner
from jupiter.reports import JudgeProbe

__all__ = ["PROBES", "Probe", "ask_probes", "probe_comparisons"]

Named = Literal["better", "worse", "tie"]


@dataclass(frozen=True)
class Verdicts:
    """What was said about one case when its better answer stood first, and when it stood second."""

    forward: Named
    swapped: Named


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One property that a judge must have."""

    name: str
    cases: tuple[Case, ...]
    bar: int
    """Least count of `right` over the cases."""
    of: int
    """Most that can be counted."""
    right: Callable[[Verdicts], int]
    what: str
    """What is counted, for the report."""


def _names_better(verdicts: Verdicts) -> int:
    return (verdicts.forward == "better") + (verdicts.swapped == "better")


def _is_tie(verdicts: Verdicts) -> int:
    return (verdicts.forward == "tie") + (verdicts.swapped == "tie")


def _follows_answer(verdicts: Verdicts) -> int:
    """A tie in one order only is no contradiction; naming the other answer after the swap is one."""
    return int({verdicts.forward, verdicts.swapped} != {"better", "worse"})


PROBES = (
    # Without it nothing that follows means anything: scrambled words, loops, another subject against plain answers.
    Probe(
        name="known_good", cases=KNOWN_GOOD, bar=11, of=12, right=_names_better, what="verdicts name the good answer"
    ),
    # A difference seen where there is none would be seen between two equal models as well. Both orders are the same
    # request here: a judge that draws its verdicts shows itself too.
    Probe(
        name="same_answer",
        cases=tuple(Case(question="Say something that is worth knowing.", better=text, worse=text) for text in SAME),
        bar=7,
        of=8,
        right=_is_tie,
        what="verdicts on the same answer twice are a tie",
    ),
    # The gap is small, so a liking for one place shows: who always names the first contradicts itself six times.
    Probe(
        name="swapped",
        cases=CLOSE,
        bar=5,
        of=6,
        right=_follows_answer,
        what="verdicts follow the answer when it is moved",
    ),
    # Models learn to please a judge before they learn to answer: what pleases must win nothing.
    Probe(
        name="flattery",
        cases=FLATTERY,
        bar=5,
        of=6,
        right=_names_better,
        what="verdicts name the plain answer, not flattery",
    ),
    Probe(
        name="instruction",
        cases=INSTRUCTION,
        bar=5,
        of=6,
        right=_names_better,
        what="verdicts name the plain answer, not the one that gives orders",
    ),
    # The best known fault of judges. Repetition and padding are incoherent by the criteria, so a tie is wrong too.
    Probe(
        name="only_longer",
        cases=LONGER,
        bar=5,
        of=6,
        right=_names_better,
        what="verdicts name the concise answer, not the padded one",
    ),
)


def probe_comparisons() -> int:
    """Return how many comparisons all probes take."""
    return 1 + sum(2 * len(probe.cases) for probe in PROBES)


def ask_probes(sitting: Sitting, progress: Progress) -> tuple[JudgeProbe, ...]:
    """Ask the probes in turn; all of them, so that the report shows every fault, unless the judge does not answer."""
    first = _comparison(KNOWN_GOOD[0])
    (answer,) = sitting.compare([first], progress)
    if isinstance(answer, Failed):
        return (JudgeProbe(name="answers", passed=False, detail=f"it does not answer: {answer.reason}"),)
    asked = [JudgeProbe(name="answers", passed=True, detail="it answers in the form asked for")]
    for probe in PROBES:
        forward = [_comparison(case) for case in probe.cases]
        answers = sitting.compare([*forward, *(comparison.swapped() for comparison in forward)], progress)
        failed = [answer for answer in answers if isinstance(answer, Failed)]
        if failed:
            # A probe that was not answered is not passed; and who stops answering is not waited for again and again.
            detail = f"{len(failed)} of {len(answers)} questions were not answered: {failed[0].reason}"
            asked.append(JudgeProbe(name=probe.name, passed=False, detail=detail))
            break
        asked.append(assess(probe, [answer for answer in answers if not isinstance(answer, Failed)]))
    return tuple(asked)


def assess(probe: Probe, winners: Sequence[Winner]) -> JudgeProbe:
    """Return the outcome; `winners` are those of all cases with the better answer first, then of all swapped."""
    cases = len(probe.cases)
    verdicts = [
        Verdicts(forward=_named(forward, first="better"), swapped=_named(swapped, first="worse"))
        for forward, swapped in zip(winners[:cases], winners[cases:], strict=True)
    ]
    right = sum(map(probe.right, verdicts))
    said = [named for both in verdicts for named in (both.forward, both.swapped)]
    detail = f"{right} of {probe.of} {probe.what}, at least {probe.bar} must"
    if right < probe.bar:
        detail += (
            f"; first {winners.count('first')}, second {winners.count('second')}, tie {winners.count('tie')}"
            f" by place, {said.count('worse')} for the worse answer"
        )
        if probe.right is _names_better and said.count("worse") >= probe.bar:
            detail += " in both orders: its verdicts are the wrong way round"
    return JudgeProbe(name=probe.name, passed=right >= probe.bar, detail=detail)


def _comparison(case: Case) -> Comparison:
    return Comparison(question=case.question, first=case.better, second=case.worse)


def _named(winner: Winner, *, first: Literal["better", "worse"]) -> Named:
    if winner == "tie":
        return "tie"
    second: Literal["better", "worse"] = "worse" if first == "better" else "better"
    return first if winner == "first" else second
