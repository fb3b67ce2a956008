"""Reports taken through the gate's stages; evaluator, generator, curator and controller are played by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from jupiter.config.sections import SelfImprovementSection
from jupiter.controller.gate import Check, History, Verdict, decide, opened
from jupiter.ledger import opening_of
from jupiter.records import digest_of
from jupiter.reports import Confirmation, EvaluationReport, Half, ItemResult, Judgement, Shadow, ShadowSide
from jupiter.statistics import summarise
from tests.unit.controller.cases import history, improvement, report
from tests.unit.controller.cycle import FIGURES

SHADOW_ITEMS = 128
Side = Literal["candidate", "incumbent"]


def half(scored: Sequence[ItemResult], which: Half) -> tuple[ItemResult, ...]:
    return tuple(item for item in scored if item.half == which)


def screened(scored: Sequence[ItemResult], **changes: Any) -> EvaluationReport:
    """What the evaluator reports first: the development items alone."""
    return report(half(scored, "development"), **changes)


def with_confirmation(
    found: EvaluationReport, scored: Sequence[ItemResult], past: History, *, judge: Judgement | None = None
) -> EvaluationReport:
    """The report once the sealed half, opened in `past`, was scored."""
    entry = opening_of(past.ledger, found.evaluation_id)
    assert entry is not None
    assert entry.opening is not None
    sealed = half(scored, "confirmation")
    summary = summarise(sealed, seed=found.seed)
    confirmation = Confirmation(
        evaluation_id=found.evaluation_id,
        opening=entry.opening,
        ledger_sequence=entry.sequence,
        benchmark_digest=found.benchmark_digest,
        checkpoint_manifest_sha256=found.checkpoint_manifest_sha256,
        generator_manifest_sha256=found.generator_manifest_sha256,
        items=sealed,
        candidate=summary.candidate,
        generator=summary.generator,
        difference=summary.difference,
        ci_low=summary.ci_low,
        ci_high=summary.ci_high,
        judge=judge,
        generated_at=found.generated_at,
        wall_s=1.0,
    )
    return found.model_copy(update={"confirmation": confirmation})


def side(which: Side, **changes: Any) -> ShadowSide:
    """A batch as good as any other: four items in ten accepted."""
    return ShadowSide.model_validate(
        {
            "manifest_sha256": digest_of("shadow batch", which),
            "items": SHADOW_ITEMS,
            "samples": SHADOW_ITEMS,
            "accepted": taken(0.4),
            "grounding": 0.8,
            "duplicates": 0.05,
            "diversity": {f"{group}.{name}": 0.5 for group in ("synthetic", "real") for name in FIGURES}
            | {f"real_sd.{name}": 0.01 for name in FIGURES}
            | {"coverage.once": 0.3, "coverage.2_to_4": 0.5, "coverage_sd.once": 0.01, "coverage_sd.2_to_4": 0.01},
            **changes,
        }
    )


def taken(share: float) -> tuple[bool, ...]:
    """Which items were accepted: spread over all documents alike."""
    return tuple(number * 37 % SHADOW_ITEMS < share * SHADOW_ITEMS for number in range(SHADOW_ITEMS))


def shadow_of(found: EvaluationReport, *, candidate: Any = None, incumbent: Any = None, **changes: Any) -> Shadow:
    """What the curator judged; `candidate` and `incumbent` are changes of their sides."""
    return Shadow.model_validate(
        {
            "evaluation_id": found.evaluation_id,
            "batch_id": digest_of("batch"),
            "clusters": tuple(digest_of("document", number // 2) for number in range(SHADOW_ITEMS)),
            "candidate": side("candidate", **(candidate or {})),
            "incumbent": side("incumbent", **(incumbent or {})),
            **changes,
        }
    )


def decided(
    scored: Sequence[ItemResult],
    *,
    past: History | None = None,
    config: SelfImprovementSection | None = None,
    judge: Judgement | None = None,
    sealed_judge: Judgement | None = None,
    shadow: dict[str, Any] | None = None,
    **changes: Any,
) -> Verdict:
    """The verdict at the end of all stages that the gate asks for."""
    past, config = past or history(), config or improvement()
    found = screened(scored, judge=judge, **changes)
    verdict = decide(found, past, config)
    if verdict.wants == "confirmation":
        past = opened(past, found)
        found = with_confirmation(found, scored, past, judge=sealed_judge)
        verdict = decide(found, past, config)
    if verdict.wants == "shadow":
        found = found.model_copy(update={"shadow": shadow_of(found, **(shadow or {}))})
        verdict = decide(found, past, config)
    assert verdict.wants == "nothing"
    return verdict


def check_of(verdict: Verdict, name: str) -> Check:
    """The one check of that name."""
    found = [check for check in verdict.checks if check.name == name]
    assert len(found) == 1, f"{name}: {len(found)} of {[check.name for check in verdict.checks]}"
    return found[0]


def unpassed(verdict: Verdict) -> list[str]:
    """The names of the checks that did not pass."""
    return [check.name for check in verdict.checks if check.outcome != "passed"]
