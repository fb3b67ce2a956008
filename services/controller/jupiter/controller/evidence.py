"""Reports and verdicts as they stand in the store.

Owns: reading a report that an event names, storing a verdict once, remembering what never changes.
Does not know: how a verdict is reached (`gate`) or acted on (`promotion`).

Synchronous; call through `asyncio.to_thread`.
"""

from __future__ import annotations

import hashlib
import threading

from pydantic import ValidationError

from jupiter import crashpoints, keys, manifests
from jupiter.blobs import Blobs
from jupiter.controller.gate import History, Look, Verdict
from jupiter.errors import IntegrityError, NotFound, Rejected
from jupiter.events import EvaluationCompleted, VerdictReached
from jupiter.ledger import LedgerEntry, verify
from jupiter.records import Record, canonical_json
from jupiter.reports import EvaluationReport

__all__ = ["Evidence", "LedgerView", "Refusal"]

REPORT_NAME = "report.json"


class Refusal(Record):
    """Why a PROMOTE verdict could not be carried out: stored as `refusal.json`, so it is not tried for ever."""

    evaluation_id: str
    reason: str
    time: str


class Evidence:
    """Reports, verdicts and refusals of one domain. All are immutable, so what was read once is kept."""

    def __init__(self, blobs: Blobs, domain: str) -> None:
        self._blobs, self._domain = blobs, domain
        self._verdicts: dict[str, tuple[Verdict, str]] = {}
        self._refusals: dict[str, Refusal] = {}

    def report(self, event: EvaluationCompleted) -> EvaluationReport:
        """Return the report that the event names. Raises Rejected when it is not the one, or not readable."""
        try:
            manifest = manifests.read(self._blobs, event.manifest_key, sha256=event.manifest_sha256).manifest
            ref = manifest.file(REPORT_NAME)
            data = self._blobs.get(ref.key)
        except (NotFound, IntegrityError, KeyError) as error:
            raise Rejected(f"evaluation {event.evaluation_id[:12]} has no readable report: {error}") from error
        if hashlib.sha256(data).hexdigest() != ref.sha256:
            raise Rejected(f"{ref.key} is not the report that was committed: its sha256 differs from {ref.sha256}")
        try:
            report = EvaluationReport.model_validate_json(data)
        except ValidationError as error:
            raise Rejected(f"{ref.key} is no valid report: {error}") from error
        if (report.evaluation_id, report.checkpoint_id, report.domain) != (
            event.evaluation_id,
            event.checkpoint_id,
            self._domain,
        ):
            raise Rejected(f"{ref.key} is about evaluation {report.evaluation_id}, its event says otherwise")
        return report

    def verdict(self, evaluation_id: str) -> tuple[Verdict, str] | None:
        """Return the stored verdict and its sha256, or None when the gate has not decided."""
        if evaluation_id not in self._verdicts:
            try:
                data = self._blobs.get(keys.verdict_key(self._domain, evaluation_id))
            except NotFound:
                return None
            self._verdicts[evaluation_id] = Verdict.model_validate_json(data), hashlib.sha256(data).hexdigest()
        return self._verdicts[evaluation_id]

    def settle(self, verdict: Verdict) -> Verdict:
        """Store the verdict if there is none yet, and return the one that stands."""
        self._blobs.create(keys.verdict_key(self._domain, verdict.evaluation_id), canonical_json(verdict))
        crashpoints.reached("manifest")
        stands = self.verdict(verdict.evaluation_id)
        assert stands is not None, "just created"  # noqa: S101 — our own mistake, not a user's
        return stands[0]

    def announcement(self, verdict: Verdict) -> VerdictReached:
        """Return the event that tells of a verdict."""
        return VerdictReached(
            domain=self._domain,
            evaluation_id=verdict.evaluation_id,
            decision=verdict.decision,
            reasons=verdict.reasons,
            verdict_key=keys.verdict_key(self._domain, verdict.evaluation_id),
        )

    def history(self, ledger: tuple[LedgerEntry, ...], evaluation_ids: tuple[str, ...]) -> History:
        """Return ledger and looks; `evaluation_ids` in the order their verdicts were reached."""
        looks = []
        for evaluation_id in evaluation_ids:
            stands = self.verdict(evaluation_id)
            if stands:
                verdict = stands[0]
                looks.append(
                    Look(
                        evaluation_id=evaluation_id,
                        generator_version=verdict.generator_version,
                        benchmark_digest=verdict.benchmark_digest,
                        decision=verdict.decision,
                        p_value=verdict.p_value,
                    )
                )
        return History(ledger=ledger, looks=tuple(looks))

    def refuse(self, refusal: Refusal) -> None:
        """Record that a promotion cannot be carried out; the first reason stands."""
        self._blobs.create(self._refusal_key(refusal.evaluation_id), canonical_json(refusal))

    def refusal(self, evaluation_id: str) -> Refusal | None:
        """Return why the promotion was refused, or None."""
        if evaluation_id not in self._refusals:
            try:
                data = self._blobs.get(self._refusal_key(evaluation_id))
            except NotFound:
                return None
            self._refusals[evaluation_id] = Refusal.model_validate_json(data)
        return self._refusals[evaluation_id]

    def _refusal_key(self, evaluation_id: str) -> str:
        return f"{keys.evaluation_prefix(self._domain, evaluation_id)}/refusal.json"


class LedgerView:
    """The verified ledger, read on from where it was: one request per refresh instead of one per entry.

    An entry that is changed after it was read is found by `read_ledger`, which every flip does first.
    """

    def __init__(self, blobs: Blobs, domain: str) -> None:
        self._blobs, self._domain = blobs, domain
        self._stored: list[bytes] = []
        self._refreshing = threading.Lock()
        self.entries: tuple[LedgerEntry, ...] = ()

    def refresh(self) -> tuple[LedgerEntry, ...]:
        """Return all entries, new ones included. Raises IntegrityError."""
        with self._refreshing:  # the API and the conductor ask from different threads
            known = len(self._stored)
            while True:
                try:
                    self._stored.append(self._blobs.get(keys.ledger_key(self._domain, len(self._stored) + 1)))
                except NotFound:
                    break
            if len(self._stored) > known:
                self.entries = verify(self._stored, domain=self._domain)
            return self.entries
