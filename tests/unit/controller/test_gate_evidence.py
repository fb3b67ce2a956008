"""INVALID: what the gate does not believe is no score, whatever it says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from jupiter.controller.gate import History, Verdict, decide, opened
from jupiter.records import digest_of
from jupiter.reports import EvaluationReport, ItemResult, JudgedPair, Judgement, JudgeProbe
from tests.unit.controller.cases import BENCHMARK, better, equal, general, history, improvement, items
from tests.unit.controller.stages import check_of, decided, half, screened, unpassed, with_confirmation

PAIRS = 20


def judgement(scored: Sequence[ItemResult], *, usable: bool = True) -> Judgement:
    """A judge that finds for the candidate where it was right and the generator was not."""
    pairs = tuple(
        JudgedPair(
            item_id=item.item_id,
            cluster=item.cluster,
            forward="candidate" if item.candidate > item.generator else "tie",
            swapped="candidate" if item.candidate > item.generator else "tie",
            candidate=1.0 if item.candidate > item.generator else 0.5,
            generator=0.0 if item.candidate > item.generator else 0.5,
        )
        for item in scored[:PAIRS]
    )
    probe = JudgeProbe(name="swapped", passed=usable, detail="prefers whatever stands first" if not usable else "both")
    reason = "" if usable else "swapped: prefers whatever stands first"
    return Judgement(judge="local test", usable=usable, reason=reason, probes=(probe,), pairs=pairs if usable else ())


def judged(scored: Sequence[ItemResult], said: Judgement) -> tuple[ItemResult, ...]:
    """The items with those that the judge's pairs make."""
    half_of = {item.item_id: item.half for item in scored}
    return (
        *scored,
        *(
            ItemResult(
                item_id=f"judged-{pair.item_id}",
                dimension="coherence",
                kind="judged",
                cluster=pair.cluster,
                half=half_of[pair.item_id],
                candidate=pair.candidate,
                generator=pair.generator,
            )
            for pair in said.pairs
        ),
    )


def scored_and_opened(scored: Sequence[ItemResult]) -> tuple[EvaluationReport, History]:
    found = screened(scored)
    return found, opened(history(), found)


def settle(found: EvaluationReport, past: History) -> Verdict:
    return decide(found, past, improvement(shadow_check=False))


@pytest.mark.parametrize(
    "change", [{"generator_version": 2}, {"generator_manifest_sha256": digest_of("other")}, {"domain": "other"}]
)
def test_a_report_about_another_generator(change: dict[str, Any]) -> None:
    """It is not compared with what would be replaced."""
    verdict = decided(items(better), **change)
    assert verdict.decision == "INVALID"
    assert check_of(verdict, "compared with the current generator").outcome == "invalid"


def test_a_report_before_any_generator() -> None:
    assert decided(items(better), past=History()).decision == "INVALID"


@pytest.mark.parametrize(
    "change",
    [
        {"checkpoint_manifest_sha256": digest_of("weights of another checkpoint")},
        {"benchmark_digest": digest_of("an easier benchmark")},
        {"evaluation_id": digest_of("an evaluation that passed")},
    ],
)
def test_a_report_replayed_for_something_else(change: dict[str, Any]) -> None:
    """The id follows from checkpoint, generator and benchmark: good figures cannot be handed on."""
    verdict = decide(screened(items(better)).model_copy(update=change), history(), improvement())
    assert (verdict.decision, unpassed(verdict)) == ("INVALID", ["about these models and this benchmark"])


def test_figures_that_the_items_do_not_bear_out() -> None:
    honest = screened(items(equal))
    boasting = honest.candidate.model_copy(update={"composite": min(1.0, honest.candidate.composite + 0.1)})
    for change in ({"candidate": boasting}, {"difference": honest.difference + 0.1}, {"ci_high": -0.9}):
        verdict = decide(honest.model_copy(update=change), history(), improvement())
        assert verdict.decision == "INVALID"
        assert check_of(verdict, "development scores recomputed").outcome == "invalid"


Change = Callable[[tuple[ItemResult, ...]], Sequence[ItemResult]]


def constant(side: str) -> Change:
    return lambda scored: [item.model_copy(update={side: 1.0}) for item in scored]


FAULTS: list[tuple[Change, str]] = [
    (lambda scored: (*scored, scored[1]), "1 item ids occur twice"),
    (constant("candidate"), "every score of the candidate is the same"),
    (constant("generator"), "every score of the generator is the same"),
    (lambda scored: [item for item in scored if item.dimension != "coherence"], "no item measures coherence"),
]


@pytest.mark.parametrize(("change", "fault"), FAULTS, ids=[fault for _, fault in FAULTS])
def test_unsound_items_in_either_half(change: Change, fault: str) -> None:
    """Never an exception, and never a p."""
    scored = items(better)
    found = screened(scored)
    unsound = found.model_copy(update={"items": tuple(change(found.items))})
    verdict = decide(unsound, history(), improvement())
    assert (verdict.decision, verdict.p_value) == ("INVALID", None)
    assert fault in check_of(verdict, "development items sound").figure

    found, past = scored_and_opened(scored)
    sound = with_confirmation(found, scored, past)
    assert sound.confirmation is not None
    sealed = sound.confirmation.model_copy(update={"items": tuple(change(sound.confirmation.items))})
    verdict = settle(sound.model_copy(update={"confirmation": sealed}), past)
    assert verdict.decision == "INVALID"
    assert fault in check_of(verdict, "sealed items sound").figure


def test_items_of_the_other_half() -> None:
    """Sealed items in the first report were looked at before they were opened."""
    scored = items(better)
    whole = screened(scored).model_copy(update={"items": scored})
    verdict = decide(whole, history(), improvement())
    assert verdict.decision == "INVALID"
    assert "items of the other half" in check_of(verdict, "development items sound").figure


def test_a_source_in_both_halves() -> None:
    """A document that prompts were chosen on is no evidence in the half that decides."""
    scored = items(better)
    found, past = scored_and_opened(scored)
    sound = with_confirmation(found, scored, past)
    assert sound.confirmation is not None
    first, *rest = sound.confirmation.items
    leaked = first.model_copy(update={"cluster": found.items[0].cluster})
    sealed = sound.confirmation.model_copy(update={"items": (leaked, *rest)})
    verdict = settle(sound.model_copy(update={"confirmation": sealed}), past)
    assert verdict.decision == "INVALID"
    assert "1 sources are in both halves" in check_of(verdict, "sealed items sound").figure


@pytest.mark.parametrize(
    "change",
    [
        {"evaluation_id": digest_of("another")},
        {"benchmark_digest": digest_of("another")},
        {"checkpoint_manifest_sha256": digest_of("another")},
        {"generator_manifest_sha256": digest_of("another")},
        {"opening": 2},
        {"ledger_sequence": 7},
    ],
)
def test_a_confirmation_of_something_else(change: dict[str, Any]) -> None:
    scored = items(better)
    found, past = scored_and_opened(scored)
    sound = with_confirmation(found, scored, past)
    assert sound.confirmation is not None
    other = sound.model_copy(update={"confirmation": sound.confirmation.model_copy(update=change)})
    verdict = settle(other, past)
    assert (verdict.decision, unpassed(verdict)) == ("INVALID", ["sealed half opened for this"])


def test_a_confirmation_that_no_opening_was_spent_on() -> None:
    """Scored first and entered in the ledger later, or never: nobody could count it."""
    scored = items(better)
    found, past = scored_and_opened(scored)
    verdict = settle(with_confirmation(found, scored, past), history())
    assert verdict.decision == "INVALID"
    assert "the ledger holds no opening" in check_of(verdict, "sealed half opened for this").figure


def test_too_few_items_in_either_half() -> None:
    """benchmark_samples 300 needs 45 to screen and 120 to decide; whatever they say."""
    verdict = decided(items(better, count=80))
    assert (verdict.decision, unpassed(verdict)) == ("INVALID", ["enough development items"])
    scored = items(better)
    short = (*half(scored, "development"), *half(scored, "confirmation")[:119])
    verdict = decided(short)
    assert verdict.decision == "INVALID"
    assert check_of(verdict, "enough sealed items").value == 119
    verdict = decided((*half(scored, "development"), *half(scored, "confirmation")[:120]))
    assert check_of(verdict, "enough sealed items").outcome == "passed"


def test_items_of_too_few_sources() -> None:
    assert "enough development items" in unpassed(decided(items(better, clusters=5)))


def test_a_general_suite_that_was_not_measured() -> None:
    whole = general()
    twice = whole.model_copy(update={"items": (*whole.items, whole.items[0])})
    foreseen = whole.model_copy(
        update={"items": (whole.items[0].model_copy(update={"candidate": 0.0}), *whole.items[1:])}
    )
    partly = whole.model_copy(update={"items": tuple(item for item in whole.items if item.kind != "code")})
    for fault in (None, twice, foreseen, partly):
        verdict = decided(items(better), general=fault)
        assert (verdict.decision, unpassed(verdict)) == ("INVALID", ["general ability measured"])


def test_one_model_scored_twice() -> None:
    """Equal on every item is no evidence; equal to the last digit in every likelihood is one and the same model."""
    alike = [item.model_copy(update={"candidate": item.generator}) for item in items(better)]
    verdict = decided(alike)
    assert (verdict.decision, check_of(verdict, "models told apart").outcome) == ("HOLD", "hold")
    suite = general()
    itself = suite.model_copy(
        update={"items": tuple(item.model_copy(update={"candidate": item.generator}) for item in suite.items)}
    )
    verdict = decided(alike, general=itself)
    assert (verdict.decision, check_of(verdict, "models told apart").outcome) == ("INVALID", "invalid")


@pytest.mark.parametrize("suite", [True, False])
def test_a_candidate_with_the_generators_weights(suite: bool) -> None:
    """The same weights are one model, with or without a general suite, and whatever the scores say."""
    weights: dict[str, Any] = {
        "candidate_weights_sha256": digest_of("weights"),
        "generator_weights_sha256": digest_of("weights"),
    }
    config = improvement(general_suite=suite)
    alike = [item.model_copy(update={"candidate": item.generator}) for item in items(better)]
    for scored in (alike, items(better)):
        verdict = decided(scored, config=config, **weights)
        check = check_of(verdict, "models told apart")
        assert (verdict.decision, check.outcome) == ("INVALID", "invalid")
        assert check.figure == f"the candidate is the generator: both have the weights {digest_of('weights')[:8]}"
    others = decided(items(better), config=config, **{**weights, "candidate_weights_sha256": digest_of("others")})
    assert others.decision == "PROMOTE"


def test_a_judge_that_fails_its_probes_counts_neither_for_nor_against() -> None:
    scored = items(better)
    verdict = decided(
        scored,
        judge=judgement(half(scored, "development"), usable=False),
        sealed_judge=judgement(half(scored, "confirmation"), usable=False),
    )
    assert verdict.decision == "PROMOTE"
    for name in ("judge", "judge on the sealed half"):
        check = check_of(verdict, name)
        assert check.outcome == "left_out"
        assert check.figure.startswith("INVALID: swapped: prefers whatever stands first")


def test_what_an_unusable_judge_said_must_not_be_among_the_items() -> None:
    scored = items(better)
    said = judgement(half(scored, "development"))
    smuggled = judged(scored, said)
    for judge in (None, judgement(scored, usable=False)):
        verdict = decided(smuggled, judge=judge)
        assert verdict.decision == "INVALID"
        assert "judge that passed its probes" in check_of(verdict, "development items sound").figure
    assert decided(smuggled, judge=said).checks[2].outcome == "passed"


def test_judged_scores_are_those_of_the_pairs() -> None:
    scored = items(equal)
    said = judgement(half(scored, "development"))
    better_said = [
        item.model_copy(update={"candidate": 1.0, "generator": 0.0}) if item.kind == "judged" else item
        for item in judged(scored, said)
    ]
    assert decided(better_said, judge=said).decision == "INVALID"


def test_judged_items_do_not_fill_up_the_benchmark() -> None:
    """They ask about the same answers again."""
    scored = items(better, count=150)
    said = judgement(half(scored, "development"))
    plain, more = decided(scored), decided(judged(scored, said), judge=said)
    assert check_of(plain, "enough development items").value == check_of(more, "enough development items").value


def test_a_judge_usable_in_one_half_only_is_left_out_of_what_spans_both() -> None:
    """Else coherence would be two different things in the two halves."""
    scored = items(better)
    first, second = judgement(half(scored, "development")), judgement(half(scored, "confirmation"))
    both = decided(judged(judged(scored, first), second), judge=first, sealed_judge=second)
    one = decided(judged(scored, first), judge=first, sealed_judge=judgement(scored, usable=False))
    none = decided(scored)
    assert (both.decision, one.decision) == ("PROMOTE", "PROMOTE")
    bounds = [check_of(verdict, "no dimension lost").figure for verdict in (both, one, none)]
    assert bounds[1] == bounds[2]
    assert bounds[0] != bounds[2]


def test_invalid_goes_before_reject_and_reject_before_hold() -> None:
    worse = [
        item.model_copy(update={"candidate": item.generator, "generator": item.candidate}) for item in items(better)
    ]
    early = decided(worse, step=1)
    assert set(unpassed(early)) == {"minimum steps", "development improvement"}
    assert early.decision == "REJECT"
    foreign = decide(screened(worse).model_copy(update={"benchmark_digest": digest_of("x")}), history(), improvement())
    assert foreign.benchmark_digest != BENCHMARK
    assert foreign.decision == "INVALID"
