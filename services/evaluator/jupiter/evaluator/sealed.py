"""The sealed half of the benchmark, opened for one evaluation.

Owns: whether it may be opened: what a request must name, and the report whose prompts are used; and how both models'
answers on it become `confirmation.json`, its files and the event about them.
Does not know: how they are scored (`contest`), nor what the gate makes of it.

What is asked here was spent in the ledger before, so a request that names no such entry opens nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from jupiter import keys, manifests
from jupiter.blobs import Blobs
from jupiter.errors import IntegrityError, NotFound, Rejected
from jupiter.evaluator.benchmarks import FrozenBenchmark, find_frozen
from jupiter.evaluator.contest import Contest
from jupiter.evaluator.items import PromptSetting, item_kinds
from jupiter.evaluator.match import Match
from jupiter.evaluator.reporting import REPORT_FILE
from jupiter.evaluator.results import ITEMS_FILE, Both
from jupiter.events import ConfirmationCompleted, ConfirmationRequested
from jupiter.ledger import LedgerEntry, entry_of_version, openings, read_ledger
from jupiter.manifests import Committed
from jupiter.records import canonical_json
from jupiter.reports import Confirmation, EvaluationReport, PromptChoice, seed_of
from jupiter.statistics import summarise

__all__ = ["CONFIRMATION_FILE", "Opened", "build_confirmation", "commit_confirmation", "confirmed", "open_sealed"]

CONFIRMATION_FILE = "confirmation.json"


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A request that was found to be in order."""

    match: Match
    entry: LedgerEntry
    """The opening, as it was spent."""
    report: EvaluationReport

    def contest(self) -> Contest:
        """Return the run that is asked for: the sealed half with the report's prompts. Raises Rejected."""
        kinds = {item.kind for item in self.match.frozen.benchmark.half("confirmation")}
        return Contest(
            match=self.match,
            half="confirmation",
            stage="confirming",
            candidate_prompts=_settings(self.report.candidate_prompts, kinds, "candidate"),
            generator_prompts=_settings(self.report.generator_prompts, kinds, "generator"),
        )


def open_sealed(blobs: Blobs, request: ConfirmationRequested, *, domain: str, newest: FrozenBenchmark) -> Opened:
    """Check the request against ledger, report and benchmark. Blocks. Raises Rejected: it will never be in order.

    What was opened on a benchmark that is no longer the `newest` is finished on that one.
    """
    ledger = read_ledger(blobs, domain)
    try:
        entry = _spent(ledger, request)
        frozen = _opened(blobs, entry, newest)
        report = _report_of(blobs, request)
        _same(
            ("the report's domain", report.domain, domain),
            ("the report's benchmark", report.benchmark_digest, frozen.digest),
            ("the report's checkpoint", report.checkpoint_id, request.checkpoint_id),
            ("the report's evaluation", report.evaluation_id, request.evaluation_id),
        )
        match = _match_of(report, ledger, frozen)
        # The id follows from the digests of both models: a report that was written over to name others has another one.
        _same(("the evaluation of the models that the report names", match.evaluation_id, request.evaluation_id))
    except (_Wrong, NotFound, IntegrityError, KeyError, ValidationError) as error:
        raise Rejected(f"the sealed half stays closed for evaluation {request.evaluation_id[:12]}: {error}") from error
    return Opened(match=match, entry=entry, report=report)


class _Wrong(Exception):
    """The request is not in order; the text is the reason."""


def _same(*claims: tuple[str, object, object]) -> None:
    """Each claim: what it is about, what is said of it, and what it should be."""
    for about, said, wanted in claims:
        if said != wanted:
            raise _Wrong(f"{about} is {said}, not {wanted}")


def _spent(ledger: tuple[LedgerEntry, ...], request: ConfirmationRequested) -> LedgerEntry:
    """Return the ledger entry that spent this opening."""
    for entry in openings(ledger):
        if entry.sequence == request.ledger_sequence:
            _same(
                ("the evaluation of that ledger entry", entry.evaluation_id, request.evaluation_id),
                ("the number of that opening", entry.opening, request.opening),
            )
            return entry
    raise _Wrong(f"ledger entry {request.ledger_sequence} is no opening of a sealed half")


def _opened(blobs: Blobs, entry: LedgerEntry, newest: FrozenBenchmark) -> FrozenBenchmark:
    """Return the benchmark that the opening names."""
    if entry.benchmark_digest == newest.digest:
        return newest
    older = find_frozen(blobs, entry.domain, digest=entry.benchmark_digest)
    if older is None:
        raise _Wrong(f"the ledger's opening is of benchmark {entry.benchmark_digest}, which was never frozen")
    return older


def _report_of(blobs: Blobs, request: ConfirmationRequested) -> EvaluationReport:
    manifest = manifests.read(blobs, request.report_manifest_key, sha256=request.report_manifest_sha256).manifest
    _same(("the kind of the named manifest", manifest.kind, "evaluation"))
    return EvaluationReport.model_validate_json(manifests.download_bytes(blobs, manifest.file(REPORT_FILE)))


def _match_of(report: EvaluationReport, ledger: tuple[LedgerEntry, ...], frozen: FrozenBenchmark) -> Match:
    version = entry_of_version(ledger, report.generator_version)
    if version is None:
        raise _Wrong(f"the report's generator version {report.generator_version} is not in the ledger")
    _same(("the report's generator manifest", report.generator_manifest_sha256, version.manifest_sha256))
    return Match.of_report(report, generator=version, frozen=frozen)


def _settings(choices: Mapping[str, PromptChoice], kinds: set[str], who: str) -> Mapping[str, PromptSetting]:
    """Return the report's choice for every kind that is asked. Raises Rejected for one that is missing or unknown."""
    settings: dict[str, PromptSetting] = {}
    for kind in sorted(kinds):
        choice = choices.get(kind)
        setting = None if choice is None else PromptSetting(choice.template, choice.shots)
        if setting is None or setting not in item_kinds()[kind].settings:
            raise Rejected(f"the report chose no known prompt of kind {kind} for the {who}: {choice}")
        settings[kind] = setting
    return settings


def build_confirmation(opened: Opened, both: Both) -> Confirmation:
    """Return what was found. Raises ValueError when a dimension has no item."""
    match, items = opened.match, both.results()
    summary = summarise(items, seed=seed_of(match.evaluation_id, match.frozen.digest))
    return Confirmation(
        evaluation_id=match.evaluation_id,
        opening=opened.entry.opening or 0,
        ledger_sequence=opened.entry.sequence,
        benchmark_digest=match.frozen.digest,
        checkpoint_manifest_sha256=match.checkpoint_manifest_sha256,
        generator_manifest_sha256=match.generator.manifest_sha256,
        items=items,
        candidate=summary.candidate,
        generator=summary.generator,
        difference=summary.difference,
        ci_low=summary.ci_low,
        ci_high=summary.ci_high,
        judge=both.judgement,
        generated_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        wall_s=both.wall_s,
    )


def commit_confirmation(blobs: Blobs, opened: Opened, both: Both) -> Committed:
    """Store confirmation and items, then the manifest; another worker's for the same opening stands if first."""
    confirmation = build_confirmation(opened, both)
    prefix = keys.sealed_prefix(opened.match.domain, confirmation.evaluation_id)
    files = (
        manifests.upload_bytes(blobs, prefix=prefix, name=CONFIRMATION_FILE, data=canonical_json(confirmation)),
        manifests.upload_bytes(blobs, prefix=prefix, name=ITEMS_FILE, data=both.lines()),
    )
    details: dict[str, Any] = {
        "opening": confirmation.opening,
        "ledger_sequence": confirmation.ledger_sequence,
        "items": len(confirmation.items),
        "candidate_score": confirmation.candidate.composite,
        "generator_score": confirmation.generator.composite,
        "difference": confirmation.difference,
    }
    return manifests.commit(
        blobs,
        prefix=prefix,
        kind="evaluation",
        domain=opened.match.domain,
        work_id=confirmation.evaluation_id,
        files=files,
        details=details,
    )


def confirmed(committed: Committed) -> ConfirmationCompleted:
    """Return the event of a committed confirmation, from its manifest alone: the same at every redelivery."""
    details = dict(committed.manifest.details)
    details.pop("ledger_sequence", None)
    return ConfirmationCompleted.model_validate(
        {
            **details,
            "domain": committed.manifest.domain,
            "evaluation_id": committed.manifest.work_id,
            "manifest_key": committed.key,
            "manifest_sha256": committed.sha256,
        }
    )
