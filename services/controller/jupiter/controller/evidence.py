"""What a verdict rests on, and the verdict, as they stand in the store.

Owns: reading the report, the confirmation and the shadow judgement that events name, and refusing any that is not the
one it should be; storing inputs and verdict once; remembering what never changes.
Does not know: how a verdict is reached (`gate`), what an evaluation needs next (`verdicts`), or what follows from it
(`promotion`).

Synchronous; call through `asyncio.to_thread`.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal, TypeVar

from pydantic import ValidationError

from jupiter import crashpoints, keys, manifests
from jupiter.blobs import Blobs
from jupiter.bus.codec import first_errors
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
from jupiter.records import Record, SharedRecord, canonical_json
from jupiter.reports import Confirmation, EvaluationReport, Shadow

__all__ = ["Evidence", "Inputs", "LedgerView", "Newer", "Refusal"]

log = logging.getLogger(__name__)

REPORT_NAME = "report.json"
CONFIRMATION_NAME = "confirmation.json"
REASON_CHARS_MAX = 1_000
"""Of a fault, and of a reason in an event, which has a limit."""

R = TypeVar("R", bound=Record)


class Inputs(Record):
    """All that a settled verdict follows from, `inputs.json`: who decides on it again gets the same verdict."""

    schema_version: Literal[1] = 1
    report: EvaluationReport
    """With the confirmation and the shadow in it, where it came to them."""
    history: History
    config: SelfImprovementSection


class Newer(Rejected):
    """A newer controller stored it, and this one cannot know what it means: it is left to the newer one."""


class Refusal(SharedRecord):
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
        self._complained: set[tuple[str, str]] = set()
        """(evaluation_id, file) of what could not be read: each is logged once."""

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
        """Return the stored verdict and its sha256, or None when the gate has not decided.

        Raises Rejected when it is damaged, Newer when this release cannot read it.
        """
        if evaluation_id not in self._verdicts:
            found = self._own(evaluation_id, "verdict.json", Verdict)
            if found is None:
                return None
            self._verdicts[evaluation_id] = found
        return self._verdicts[evaluation_id]

    def inputs(self, evaluation_id: str) -> Inputs | None:
        """Return the inputs that stand, or None when nothing was settled.

        Raises Rejected when they are damaged, Newer when they hold what this release does not know.
        """
        stands = self._inputs(evaluation_id)
        return stands[0] if stands else None

    def _inputs(self, evaluation_id: str) -> tuple[Inputs, str] | None:
        """Return the inputs that stand and their sha256."""
        return self._own(evaluation_id, "inputs.json", Inputs)

    def _own(self, evaluation_id: str, name: str, kind: type[R]) -> tuple[R, str] | None:
        """Return what a controller stored, and its sha256. Raises Rejected when it is damaged, or Newer."""
        try:
            data = self._blobs.get(self._key(evaluation_id, name))
        except NotFound:
            return None
        try:
            return kind.model_validate_json(data), hashlib.sha256(data).hexdigest()
        except ValidationError as error:
            unreadable = _unreadable(name, evaluation_id, error)
            if (evaluation_id, name) not in self._complained:
                self._complained.add((evaluation_id, name))
                log.warning("%s", unreadable)
            raise unreadable from error

    def has_begun(self, evaluation_id: str) -> bool:
        """Return whether some controller has begun to settle the evaluation: inputs or a verdict stand."""
        stand = (self._key(evaluation_id, "inputs.json"), keys.verdict_key(self._domain, evaluation_id))
        return any(self._blobs.stat(key) is not None for key in stand)

    def settle(self, inputs: Inputs) -> Verdict:
        """Store inputs and verdict if there are none yet, and return the verdict that stands.

        Two controllers may come with different inputs (one has seen an alarm that the other has not): whose inputs were
        created first decides, and the verdict is always made from those, and names their digest.

        Raises Newer when a newer controller created those.
        """
        evaluation_id = inputs.report.evaluation_id
        self._blobs.create(self._key(evaluation_id, "inputs.json"), canonical_json(inputs))
        crashpoints.reached("blobs")
        stands = self._inputs(evaluation_id)
        assert stands is not None, "just created"  # noqa: S101 — our own mistake, not a user's
        stand, digest = stands
        verdict = decide(stand.report, stand.history, stand.config)
        return self.store(verdict.model_copy(update={"inputs_sha256": digest}))

    def store(self, verdict: Verdict) -> Verdict:
        """Store the verdict if there is none yet, and return the one that stands, or this one where that is damaged."""
        self._blobs.create(keys.verdict_key(self._domain, verdict.evaluation_id), canonical_json(verdict))
        crashpoints.reached("manifest")
        try:
            stands = self.verdict(verdict.evaluation_id)
        except Newer:
            raise
        except Rejected:
            return verdict
        assert stands is not None, "just created"  # noqa: S101 — our own mistake, not a user's
        return stands[0]

    def stored(self, evaluation_id: str) -> tuple[bytes | None, bytes]:
        """Return inputs (None: nothing readable was there to decide on) and verdict, byte for byte as stored.

        Raises NotFound when the evaluation is not settled.
        """
        verdict = self._blobs.get(keys.verdict_key(self._domain, evaluation_id))
        try:
            return self._blobs.get(self._key(evaluation_id, "inputs.json")), verdict
        except NotFound:
            return None, verdict

    def keep(self, prefix: str, name: str, record: R) -> tuple[R, str]:
        """Store the record if none stands under the name; return the one that stands, and its sha256.

        Where that is damaged, this one is stored beside it under its content's name, and returned.
        """
        data = canonical_json(record)
        self._blobs.create(f"{prefix}/{name}", data)
        crashpoints.reached("blobs")
        stands = self._blobs.get(f"{prefix}/{name}")
        try:
            return type(record).model_validate_json(stands), hashlib.sha256(stands).hexdigest()
        except ValidationError as error:
            again = manifests.upload_bytes(self._blobs, prefix=prefix, name=name, data=data)
            log.error(  # noqa: TRY400
                "evidence %s/%s is damaged: %s; it was found anew, and %s stands for it",
                prefix,
                name,
                first_errors(error),
                again.key,
            )
            return record, again.sha256

    def announcement(self, verdict: Verdict) -> VerdictReached:
        """Return the event that tells of the verdict, which is stored with its whole reasons."""
        key = keys.verdict_key(self._domain, verdict.evaluation_id)
        return VerdictReached(
            domain=self._domain,
            evaluation_id=verdict.evaluation_id,
            decision=verdict.decision,
            reasons=tuple(reason[:REASON_CHARS_MAX] for reason in verdict.reasons),
            verdict_key=key,
            verdict_sha256=hashlib.sha256(self._blobs.get(key)).hexdigest(),
            checkpoint_id=verdict.checkpoint_id,
        )

    def history(
        self, ledger: tuple[LedgerEntry, ...], evaluation_ids: tuple[str, ...], *, alarms: tuple[str, ...] = ()
    ) -> History:
        """Return ledger, looks and open alarms; `evaluation_ids` in the order their verdicts were reached.

        A look whose verdict cannot be read is left out: looks are counted for people, the error is spent by the ledger.
        """
        looks = []
        for evaluation_id in evaluation_ids:
            with suppress(Rejected):
                stands = self.verdict(evaluation_id)
                looks += [_look(stands[0])] if stands else []
        return History(ledger=ledger, looks=tuple(looks), alarms=alarms)

    def refuse(self, refusal: Refusal) -> None:
        """Record that a promotion cannot be carried out; the first reason stands."""
        self._blobs.create(self._key(refusal.evaluation_id, "refusal.json"), canonical_json(refusal))

    def refusal(self, evaluation_id: str) -> Refusal | None:
        """Return why the promotion was refused, or None. What cannot be read refuses all the same."""
        if evaluation_id not in self._refusals:
            try:
                found = self._own(evaluation_id, "refusal.json", Refusal)
            except Rejected as error:
                return Refusal(evaluation_id=evaluation_id, reason=f"it was refused before, but {error}", time="")
            if found is None:
                return None
            self._refusals[evaluation_id] = found[0]
        return self._refusals[evaluation_id]

    def _key(self, evaluation_id: str, name: str) -> str:
        return f"{keys.evaluation_prefix(self._domain, evaluation_id)}/{name}"


def _look(verdict: Verdict) -> Look:
    return Look(
        evaluation_id=verdict.evaluation_id,
        generator_version=verdict.generator_version,
        benchmark_digest=verdict.benchmark_digest,
        decision=verdict.decision,
        p_value=verdict.p_value,
    )


@contextmanager
def _told(what: str, evaluation_id: str) -> Iterator[None]:
    """Every fault of a piece of evidence is one refusal of it, which names it."""
    try:
        yield
    except ValidationError as error:
        raise _not_believed(what, evaluation_id, first_errors(error)) from error
    except (NotFound, IntegrityError, KeyError, ValueError) as error:
        raise _not_believed(what, evaluation_id, str(error)) from error


def _not_believed(what: str, evaluation_id: str, fault: str) -> Rejected:
    return Rejected(f"evaluation {evaluation_id[:12]} has no {what} that may be believed: {fault[:REASON_CHARS_MAX]}")


def _unreadable(what: str, evaluation_id: str, error: ValidationError) -> Rejected:
    """Tell what a newer release wrote, which is sound but for what is unknown here, from what is damaged."""
    found, fault = error.errors(include_input=False), first_errors(error)[:REASON_CHARS_MAX]
    of_another_version = any(item["loc"][-1:] == ("schema_version",) for item in found)
    if of_another_version or all(item["type"] == "extra_forbidden" for item in found):
        name = f"{what} of evaluation {evaluation_id[:12]}"
        return Newer(f"{name} is of a newer controller, and is left to that one: {fault}; upgrade this one too")
    return _not_believed(what, evaluation_id, fault)


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
