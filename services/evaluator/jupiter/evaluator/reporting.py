"""The report of an evaluation on the development half.

Owns: how both models' answers become `report.json`, its files, and the event about them.
Does not know: the statistics' formulas (`jupiter.statistics`), what the gate makes of them, the sealed half.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from jupiter import manifests
from jupiter.blobs import Blobs
from jupiter.evaluator.examination import Examined
from jupiter.evaluator.general import general_of
from jupiter.evaluator.match import Match
from jupiter.evaluator.results import ITEMS_FILE, Both
from jupiter.events import EvaluationCompleted
from jupiter.manifests import Committed
from jupiter.records import canonical_json
from jupiter.reports import EvaluationReport, General, PromptChoice, seed_of
from jupiter.statistics import summarise

__all__ = ["REPORT_FILE", "build_report", "commit_report", "completed"]

REPORT_FILE = "report.json"


def build_report(match: Match, both: Both) -> EvaluationReport:
    """Return the report. Raises ValueError when a dimension has no item, Unscored when a general item lacks a side."""
    items = both.results()
    seed = seed_of(match.evaluation_id, match.frozen.digest)
    summary = summarise(items, seed=seed)
    return EvaluationReport(
        evaluation_id=match.evaluation_id,
        domain=match.domain,
        checkpoint_id=match.checkpoint_id,
        run=match.run,
        step=match.step,
        checkpoint_manifest_key=match.checkpoint_manifest_key,
        checkpoint_manifest_sha256=match.checkpoint_manifest_sha256,
        generator_version=match.generator.version,
        generator_manifest_sha256=match.generator.manifest_sha256,
        candidate_weights_sha256=both.candidate_weights_sha256,
        generator_weights_sha256=both.generator_weights_sha256,
        benchmark_digest=match.frozen.digest,
        benchmark_manifest_sha256=match.frozen.manifest_sha256,
        seed=seed,
        candidate_prompts=_choices(both.candidate),
        generator_prompts=_choices(both.generator),
        items=items,
        candidate=summary.candidate,
        generator=summary.generator,
        difference=summary.difference,
        ci_low=summary.ci_low,
        ci_high=summary.ci_high,
        generated_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        wall_s=both.wall_s,
        figures=both.figures(),
        general=_general(both),
        judge=both.judgement,
    )


def _general(both: Both) -> General | None:
    asked = both.candidate.general or both.generator.general
    return general_of(both.candidate.general, both.generator.general) if asked else None


def _choices(examined: Examined) -> Mapping[str, PromptChoice]:
    return {
        kind: PromptChoice(template=setting.template, shots=setting.shots)
        for kind, setting in sorted(examined.prompts.items())
    }


def commit_report(blobs: Blobs, match: Match, both: Both) -> Committed:
    """Store report and items, then the manifest; another worker's manifest for the same match stands if first."""
    report = build_report(match, both)
    files = (
        manifests.upload_bytes(blobs, prefix=match.prefix, name=REPORT_FILE, data=canonical_json(report)),
        manifests.upload_bytes(blobs, prefix=match.prefix, name=ITEMS_FILE, data=both.lines()),
    )
    return manifests.commit(
        blobs,
        prefix=match.prefix,
        kind="evaluation",
        domain=report.domain,
        work_id=report.evaluation_id,
        files=files,
        details=_event_of(report),
    )


def _event_of(report: EvaluationReport) -> dict[str, Any]:
    """Return the event's figures as the manifest keeps them, so that a redelivery can publish them again."""
    return {
        "checkpoint_id": report.checkpoint_id,
        "checkpoint_manifest_key": report.checkpoint_manifest_key,
        "run": report.run,
        "step": report.step,
        "generator_version": report.generator_version,
        "benchmark_digest": report.benchmark_digest,
        "items": len(report.items),
        "candidate_score": report.candidate.composite,
        "generator_score": report.generator.composite,
        "difference": report.difference,
        "ci_low": report.ci_low,
        "ci_high": report.ci_high,
    }


def completed(committed: Committed) -> EvaluationCompleted:
    """Return the event of a committed evaluation, from its manifest alone: the same at every redelivery."""
    return EvaluationCompleted.model_validate(
        {
            **committed.manifest.details,
            "domain": committed.manifest.domain,
            "evaluation_id": committed.manifest.work_id,
            "manifest_key": committed.key,
            "manifest_sha256": committed.sha256,
        }
    )
