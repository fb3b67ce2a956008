"""The report of an evaluation and its files.

Owns: how both models' answers become `report.json` and `items.jsonl.zst`, and the event about them.
Does not know: the statistics' formulas (`jupiter.statistics`), nor what the gate makes of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import fmean
from typing import Any

from jupiter import keys, manifests
from jupiter.blobs import Blobs
from jupiter.evaluator.benchmarks import FrozenBenchmark
from jupiter.evaluator.examination import Examined
from jupiter.evaluator.items import Item, item_kinds
from jupiter.evaluator.scoring import ItemScore
from jupiter.events import CheckpointSaved, EvaluationCompleted
from jupiter.ledger import LedgerEntry
from jupiter.manifests import Committed
from jupiter.records import canonical_json, digest_of
from jupiter.reports import DIMENSIONS, EvaluationReport, ItemResult, PromptChoice, seed_of
from jupiter.sample_files import write_json_lines
from jupiter.statistics import paired, summarise

__all__ = ["Match", "build_report", "commit_report", "completed"]

REPORT_FILE = "report.json"
ITEMS_FILE = "items.jsonl.zst"


@dataclass(frozen=True, kw_only=True)
class Match:
    """What is compared on what: fixed before the first answer, and never changed by a later flip."""

    checkpoint: CheckpointSaved
    generator: LedgerEntry
    frozen: FrozenBenchmark

    @property
    def evaluation_id(self) -> str:
        return digest_of(self.checkpoint.manifest_sha256, self.generator.manifest_sha256, self.frozen.digest)

    @property
    def prefix(self) -> str:
        return keys.evaluation_prefix(self.checkpoint.domain, self.evaluation_id)


def build_report(
    match: Match, *, candidate: Examined, generator: Examined, confidence: float, wall_s: float
) -> EvaluationReport:
    """Return the report. Raises ValueError when a dimension has no confirmation item."""
    items = tuple(
        ItemResult(
            item_id=item.item_id,
            dimension=item.dimension,
            kind=item.kind,
            cluster=item.cluster,
            half=item.half,
            candidate=candidate.scores[item.item_id].score,
            generator=generator.scores[item.item_id].score,
        )
        for item in match.frozen.benchmark.items
    )
    seed = seed_of(match.evaluation_id, match.frozen.digest)
    summary = summarise(items, seed=seed)
    return EvaluationReport(
        evaluation_id=match.evaluation_id,
        domain=match.checkpoint.domain,
        checkpoint_id=match.checkpoint.checkpoint_id,
        run=match.checkpoint.run,
        step=match.checkpoint.step,
        checkpoint_manifest_key=match.checkpoint.manifest_key,
        checkpoint_manifest_sha256=match.checkpoint.manifest_sha256,
        generator_version=match.generator.version,
        generator_manifest_sha256=match.generator.manifest_sha256,
        benchmark_digest=match.frozen.digest,
        benchmark_manifest_sha256=match.frozen.manifest_sha256,
        seed=seed,
        candidate_prompts=_choices(candidate),
        generator_prompts=_choices(generator),
        items=items,
        candidate=summary.candidate,
        generator=summary.generator,
        difference=summary.difference,
        ci_low=summary.ci_low,
        ci_high=summary.ci_high,
        generated_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        wall_s=wall_s,
        figures=_figures(match, items, candidate, generator, confidence=confidence, seed=seed),
    )


def _choices(examined: Examined) -> dict[str, PromptChoice]:
    return {
        kind: PromptChoice(template=setting.template, shots=setting.shots)
        for kind, setting in sorted(examined.prompts.items())
    }


def _figures(
    match: Match, items: Sequence[ItemResult], candidate: Examined, generator: Examined, *, confidence: float, seed: int
) -> Mapping[str, Any]:
    """Return what is reported but decides nothing: both halves compared, scores by kind, bits per byte, time."""
    confirming = [item for item in match.frozen.benchmark.items if item.half == "confirmation"]
    return {
        "seconds": {"candidate": candidate.seconds, "generator": generator.seconds},
        "halves": {
            half: _half([item for item in items if item.half == half], confidence=confidence, seed=seed)
            for half in ("development", "confirmation")
        },
        "bits_per_byte": {
            "candidate": _bits_per_byte(candidate, confirming),
            "generator": _bits_per_byte(generator, confirming),
        },
    }


def _half(items: Sequence[ItemResult], *, confidence: float, seed: int) -> Mapping[str, Any]:
    """Return wins and scores by kind; the paired comparison too, where every dimension is measured."""
    kinds: dict[str, dict[str, float]] = {}
    for kind in sorted({item.kind for item in items}):
        chosen = [item for item in items if item.kind == kind]
        kinds[kind] = {
            "items": len(chosen),
            "candidate": fmean(item.candidate for item in chosen),
            "generator": fmean(item.generator for item in chosen),
        }
    figures: dict[str, Any] = {
        "items": len(items),
        "clusters": len({item.cluster for item in items}),
        "wins": sum(item.candidate > item.generator for item in items),
        "losses": sum(item.candidate < item.generator for item in items),
        "kinds": kinds,
    }
    if {item.dimension for item in items} == set(DIMENSIONS):
        compared = paired(items, seed=seed, confidence=confidence)
        figures |= {
            "difference": compared.difference,
            "lower": compared.lower,
            "upper": compared.upper,
            "p_value": compared.p_value,
        }
    return figures


def _bits_per_byte(examined: Examined, items: list[Item]) -> float | None:
    """Return the mean over the items that have a right answer, and so a likelihood of it: lower is better."""
    answered = [item for item in items if item_kinds()[item.kind].method != "health"]
    if not answered:
        return None
    return fmean(-examined.scores[item.item_id].log_probability / math.log(2) for item in answered)


def commit_report(
    blobs: Blobs, match: Match, report: EvaluationReport, *, candidate: Examined, generator: Examined
) -> Committed:
    """Store report and items, then the manifest; another worker's manifest for the same match stands if first."""
    lines = write_json_lines(_answers(match, candidate, generator))
    files = (
        manifests.upload_bytes(blobs, prefix=match.prefix, name=REPORT_FILE, data=canonical_json(report)),
        manifests.upload_bytes(blobs, prefix=match.prefix, name=ITEMS_FILE, data=lines),
    )
    event = _event_of(report)
    return manifests.commit(
        blobs,
        prefix=match.prefix,
        kind="evaluation",
        domain=report.domain,
        work_id=report.evaluation_id,
        files=files,
        details=event,
    )


def _answers(match: Match, candidate: Examined, generator: Examined) -> Iterator[Mapping[str, Any]]:
    """Yield every item with what was asked, what is right and what both models answered."""

    def answer_of(score: ItemScore) -> Mapping[str, Any]:
        return {"answer": score.answer, "score": score.score, "log_probability": score.log_probability}

    for item in match.frozen.benchmark.items:
        yield {
            "item_id": item.item_id,
            "dimension": item.dimension,
            "kind": item.kind,
            "cluster": item.cluster,
            "half": item.half,
            "fields": dict(item.fields),
            "right_answer": item.answer,
            "candidate": answer_of(candidate.scores[item.item_id]),
            "generator": answer_of(generator.scores[item.item_id]),
        }


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
