"""What a verdict rests on, and the verdict, as they stand in the store.

Owns: reading the report, the confirmation and the shadow judgement that events name, and refusing any that is not the
one it should be; storing inputs and verdict once; remembering what never changes.
Does not know: how a verdict is reached (`gate`), what an evaluation needs next (`verdicts`), or what follows from it
(`promotion`).

Synchronous; call through `asyncio.to_thread`.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, TypeVar

from pydantic import ValidationError

from jupiter import crashpoints, keys, manifests
from jupiter.blobs import Blobs
from jupiter.config.sections import SelfImprovementSection
from jupiter.controller.gate import History, Look, Verdict, decide
from jupiter.errors import IntegrityError, NotFound, Rejected
from jupiter.events import (
    CheckpointSaved,
    ConfirmationCompleted,
    EvaluationCompleted,
    ShadowGenerated,
    ShadowJudged,
    ShadowRequested,
    VerdictReached,
)
from jupiter.ledger import LedgerEntry, verify
from jupiter.records import Record, canonical_json
from jupiter.reports import Confirmation, EvaluationReport, Shadow

__all__ = ["Evidence", "Inputs", "LedgerView", "Refusal"]

REPORT_NAME = "report.json"
CONFIRMATION_NAME = "confirmation.json"

R = TypeVar("R", bound=Record)


class Inputs(Record):
    """All that a settled verdict follows from, `inputs.json`: who decides on it again gets the same verdict."""

    schema_version: Literal[1] = 1
    report: EvaluationReport
    """With the confirmation and the shadow in it, where it came to them."""
    history: History
    config: SelfImprovementSection


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
        with _told("report", event.evaluation_id):
            report = self._file(event.manifest_key, event.manifest_sha256, REPORT_NAME, EvaluationReport)
            _same(
                ("evaluation", report.evaluation_id, event.evaluation_id),
                ("checkpoint", report.checkpoint_id, event.checkpoint_id),
                ("domain", report.domain, self._domain),
            )
        return report

    def belongs(self, report: EvaluationReport, checkpoint: CheckpointSaved) -> None:
        """Raises Rejected when the report is about other bytes than the trainer saved under the checkpoint's name."""
        with _told("report", report.evaluation_id):
            _same(
                ("checkpoint manifest", report.checkpoint_manifest_sha256, checkpoint.manifest_sha256),
                ("step", report.step, checkpoint.step),
                ("run", report.run, checkpoint.run),
            )

    def confirmation(
        self, event: ConfirmationCompleted, report: EvaluationReport, opening: LedgerEntry
    ) -> Confirmation:
        """Return what was found on the sealed half. Raises Rejected when it is not that of this report and opening."""
        with _told("confirmation", event.evaluation_id):
            found = self._file(event.manifest_key, event.manifest_sha256, CONFIRMATION_NAME, Confirmation)
            _same(
                ("evaluation", found.evaluation_id, report.evaluation_id),
                ("opening", found.opening, opening.opening),
                ("ledger entry", found.ledger_sequence, opening.sequence),
                ("benchmark", found.benchmark_digest, report.benchmark_digest),
                ("checkpoint manifest", found.checkpoint_manifest_sha256, report.checkpoint_manifest_sha256),
                ("generator manifest", found.generator_manifest_sha256, report.generator_manifest_sha256),
            )
        return found

    def shadow(self, event: ShadowJudged, request: ShadowRequested, made: ShadowGenerated | None) -> Shadow:
        """Return the curator's judgement. Raises Rejected when it is not about the two batches of this evaluation."""
        with _told("shadow judgement", event.evaluation_id):
            manifest = manifests.read(self._blobs, event.manifest_key, sha256=event.manifest_sha256).manifest
            found = Shadow.model_validate(manifest.details)
            _same(
                ("evaluation", found.evaluation_id, request.evaluation_id),
                ("batch", found.batch_id, request.batch_id),
                ("incumbent's batch", found.incumbent.manifest_sha256, request.batch_manifest_sha256),
            )
            if made is not None:
                _same(("candidate's batch", found.candidate.manifest_sha256, made.manifest_sha256))
        return found

    def _file(self, manifest_key: str, manifest_sha256: str, name: str, kind: type[R]) -> R:
        """Return a file of a manifest that an event names, its digests checked."""
        manifest = manifests.read(self._blobs, manifest_key, sha256=manifest_sha256).manifest
        return kind.model_validate_json(manifests.download_bytes(self._blobs, manifest.file(name)))

    def verdict(self, evaluation_id: str) -> tuple[Verdict, str] | None:
        """Return the stored verdict and its sha256, or None when the gate has not decided."""
        if evaluation_id not in self._verdicts:
            try:
                data = self._blobs.get(keys.verdict_key(self._domain, evaluation_id))
            except NotFound:
                return None
            self._verdicts[evaluation_id] = Verdict.model_validate_json(data), hashlib.sha256(data).hexdigest()
        return self._verdicts[evaluation_id]

    def inputs(self, evaluation_id: str) -> Inputs | None:
        """Return the inputs that stand, or None when nothing was settled. Raises Rejected when they are damaged."""
        stands = self._inputs(evaluation_id)
        return stands[0] if stands else None

    def _inputs(self, evaluation_id: str) -> tuple[Inputs, str] | None:
        """Return the inputs that stand and their sha256."""
        try:
            data = self._blobs.get(self._inputs_key(evaluation_id))
        except NotFound:
            return None
        with _told("inputs.json", evaluation_id):
            return Inputs.model_validate_json(data), hashlib.sha256(data).hexdigest()

    def settle(self, inputs: Inputs) -> Verdict:
        """Store inputs and verdict if there are none yet, and return the verdict that stands.

        Two controllers may come with different inputs (one has seen an alarm that the other has not): whose inputs were
        created first decides, and the verdict is always made from those, and names their digest.
        """
        evaluation_id = inputs.report.evaluation_id
        self._blobs.create(self._inputs_key(evaluation_id), canonical_json(inputs))
        crashpoints.reached("blobs")
        stands = self._inputs(evaluation_id)
        assert stands is not None, "just created"  # noqa: S101 — our own mistake, not a user's
        stand, digest = stands
        verdict = decide(stand.report, stand.history, stand.config)
        return self.store(verdict.model_copy(update={"inputs_sha256": digest}))

    def store(self, verdict: Verdict) -> Verdict:
        """Store the verdict if there is none yet, and return the one that stands."""
        self._blobs.create(keys.verdict_key(self._domain, verdict.evaluation_id), canonical_json(verdict))
        crashpoints.reached("manifest")
        stands = self.verdict(verdict.evaluation_id)
        assert stands is not None, "just created"  # noqa: S101 — our own mistake, not a user's
        return stands[0]

    def stored(self, evaluation_id: str) -> tuple[bytes | None, bytes]:
        """Return inputs (None: nothing readable was there to decide on) and verdict, byte for byte as stored.

        Raises NotFound when the evaluation is not settled.
        """
        verdict = self._blobs.get(keys.verdict_key(self._domain, evaluation_id))
        try:
            return self._blobs.get(self._inputs_key(evaluation_id)), verdict
        except NotFound:
            return None, verdict

    def keep(self, key: str, record: Record) -> tuple[bytes, str]:
        """Store the record if the key is free; return what stands there, and its sha256."""
        self._blobs.create(key, canonical_json(record))
        crashpoints.reached("blobs")
        data = self._blobs.get(key)
        return data, hashlib.sha256(data).hexdigest()

    def announcement(self, evaluation_id: str) -> VerdictReached:
        """Return the event that tells of the stored verdict."""
        stands = self.verdict(evaluation_id)
        assert stands is not None, "only what is stored is told"  # noqa: S101 — our own mistake, not a user's
        verdict, digest = stands
        return VerdictReached(
            domain=self._domain,
            evaluation_id=verdict.evaluation_id,
            decision=verdict.decision,
            reasons=verdict.reasons,
            verdict_key=keys.verdict_key(self._domain, verdict.evaluation_id),
            verdict_sha256=digest,
            checkpoint_id=verdict.checkpoint_id,
        )

    def history(
        self, ledger: tuple[LedgerEntry, ...], evaluation_ids: tuple[str, ...], *, alarms: tuple[str, ...] = ()
    ) -> History:
        """Return ledger, looks and open alarms; `evaluation_ids` in the order their verdicts were reached."""
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
        return History(ledger=ledger, looks=tuple(looks), alarms=alarms)

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

    def _inputs_key(self, evaluation_id: str) -> str:
        return f"{keys.evaluation_prefix(self._domain, evaluation_id)}/inputs.json"


@contextmanager
def _told(what: str, evaluation_id: str) -> Iterator[None]:
    """Every fault of a piece of evidence is one refusal of it, which names it."""
    try:
        yield
    except (NotFound, IntegrityError, KeyError, ValidationError, ValueError) as error:
        raise Rejected(f"evaluation {evaluation_id[:12]} has no {what} that may be believed: {error}") from error


def _same(*claims: tuple[str, object, object]) -> None:
    """Each claim: what it is about, what the evidence says, and what it should."""
    for about, said, wanted in claims:
        if said != wanted:
            raise ValueError(f"it is about {about} {said}, not {wanted}")


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
