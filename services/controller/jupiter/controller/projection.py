"""What the controller knows: a projection of the streams, rebuilt at every start, never a database.

Owns: folding each event into the state, and the questions that need no decision (what is open, who serves what).
Does not know: what to do about it (`metronome`, `watch`, `collection`), nor where events come from (`following`).

Applying an event twice changes nothing, and the order between channels does not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from jupiter.events import (
    BaseModelImported,
    BatchGenerated,
    BenchmarkFrozen,
    BenchmarkRenewalRefused,
    BenchmarkRenewalRequested,
    CheckpointSaved,
    ConfirmationCompleted,
    ConfirmationRequested,
    DiversityAlarmCleared,
    DiversityAlarmRaised,
    DocumentAccepted,
    DocumentForgotten,
    EvaluationCompleted,
    Event,
    GenerationRequested,
    GenerationVoided,
    GeneratorLoaded,
    GeneratorLoadFailed,
    GeneratorPromoted,
    GeneratorRolledBack,
    RewindRequested,
    ServiceStatus,
    ShadowFailed,
    ShadowGenerated,
    ShadowJudged,
    ShadowRequested,
    ShardCurated,
    VerdictReached,
    VersionQuarantined,
)

__all__ = ["CHANNELS", "Accounting", "Alarm", "Issued", "Load", "Projection"]

Flip = GeneratorPromoted | GeneratorRolledBack
Load = GeneratorLoaded | GeneratorLoadFailed
Alarm = DiversityAlarmRaised | DiversityAlarmCleared


@dataclass(frozen=True)
class Issued:
    """One generation request, as far as the metronome needs it."""

    request_id: str
    generator_version: int
    sequence: int
    document_ids: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Accounting:
    """Where every request and every batch is. `lost` is 0, or something is wrong: nothing may vanish.

    requests = batches + voided + open requests; batches = shards + open batches + buried batches.
    """

    requests: int
    batches: int
    voided: int
    open_requests: int
    shards: int
    open_batches: int
    lost: int
    """Batches without a request, and shards without a batch: work that no event accounts for."""
    buried_batches: int
    """Batches that ended in the dead letters or were withdrawn: their request was given up, and no shard came."""


@dataclass
class Projection:
    """The state. Every mapping is in stream order."""

    domain: str
    documents: dict[str, DocumentAccepted] = field(default_factory=dict)
    benchmarks: dict[int, BenchmarkFrozen] = field(default_factory=dict)
    """By generation."""
    renewals: dict[int, list[BenchmarkRenewalRequested]] = field(default_factory=dict)
    """Generation -> the requests for it, each once."""
    renewals_refused: dict[int, list[BenchmarkRenewalRefused]] = field(default_factory=dict)
    base: BaseModelImported | None = None
    requests: dict[str, Issued] = field(default_factory=dict)
    batches: dict[str, BatchGenerated] = field(default_factory=dict)
    voided: dict[str, GenerationVoided] = field(default_factory=dict)
    shards: dict[str, ShardCurated] = field(default_factory=dict)
    shard_sequences: dict[str, int] = field(default_factory=dict)
    """shard_id -> its sequence in the stream, which is what the trainer's offset counts."""
    checkpoints: dict[str, CheckpointSaved] = field(default_factory=dict)
    evaluations: dict[str, EvaluationCompleted] = field(default_factory=dict)
    verdicts: dict[str, VerdictReached] = field(default_factory=dict)
    confirmation_requests: dict[str, ConfirmationRequested] = field(default_factory=dict)
    confirmations: dict[tuple[str, int], ConfirmationCompleted] = field(default_factory=dict)
    """(evaluation_id, opening) -> what was found on the sealed half."""
    shadow_requests: dict[str, ShadowRequested] = field(default_factory=dict)
    shadow_batches: dict[str, ShadowGenerated] = field(default_factory=dict)
    shadow_failures: dict[str, ShadowFailed] = field(default_factory=dict)
    """evaluation_id -> the first generator's reason why it could not make the candidate's batch."""
    shadows: dict[str, ShadowJudged] = field(default_factory=dict)
    alarms: list[Alarm] = field(default_factory=list)
    """Diversity alarms raised and cleared, in stream order, each once."""
    quarantines: dict[int, VersionQuarantined] = field(default_factory=dict)
    """Ledger sequence of the rollback -> what it withdrew."""
    forgotten: dict[str, DocumentForgotten] = field(default_factory=dict)
    rewinds: dict[int, RewindRequested] = field(default_factory=dict)
    """Ledger sequence of the rollback -> where the trainer was sent back to."""
    flips: dict[int, Flip] = field(default_factory=dict)
    loads: dict[tuple[int, str], Load] = field(default_factory=dict)
    """(ledger sequence, instance) -> what the instance said last about it."""
    serving: dict[str, int] = field(default_factory=dict)
    """instance -> version that it attested last; a failed load leaves it with the one before."""
    statuses: dict[str, ServiceStatus] = field(default_factory=dict)
    """`service/instance` -> newest status."""
    request_places: dict[int, str] = field(default_factory=dict)
    """Sequence in its stream -> request_id. What was replayed from the dead letters has two, as in the next one."""
    batch_places: dict[int, str] = field(default_factory=dict)
    """Sequence in its stream -> batch_id."""
    void_places: set[int] = field(default_factory=set)
    """Sequences of the voids, in the same stream."""
    uses: dict[str, list[int]] = field(default_factory=dict)
    """document_id -> sequences of the requests that asked for it and were not voided."""

    def apply(self, event: Event, sequence: int = 0) -> None:
        """Fold one event in; of another domain, or of a type we do not follow: ignored.

        `sequence`: in its stream; 0 where it is not known, for the stream brings the same event once more.
        """
        fold = _FOLDS.get(type(event))
        if fold is not None and event.domain == self.domain:
            fold(self, event, sequence)

    @property
    def benchmark(self) -> BenchmarkFrozen | None:
        """The benchmark in use: the newest."""
        return self.benchmarks[max(self.benchmarks)] if self.benchmarks else None

    def open_requests(self) -> list[Issued]:
        """Return requests that have neither become a shard nor been given up, oldest first."""
        return [
            issued
            for request_id, issued in self.requests.items()
            if request_id not in self.shards and request_id not in self.voided
        ]

    def unmade_requests(self) -> list[Issued]:
        """Return requests that have neither become a batch nor been voided."""
        return [issued for issued in self.open_requests() if issued.request_id not in self.batches]

    def trained_shard_sequence(self) -> int:
        """Return how far the trainer is in the stream of shards: by its newest status, else by its last checkpoint.

        Not the farthest it ever was: a rewind takes it back.
        """
        return self._trained("shard_sequence", [checkpoint.shard_sequence for checkpoint in self.checkpoints.values()])

    def trained_step(self) -> int:
        """Return how far the trainer is in its run, found out likewise: another run begins anew."""
        return self._trained("step", [checkpoint.step for checkpoint in self.checkpoints.values()])

    def _trained(self, figure: str, saved: Sequence[int]) -> int:
        said = (status.figures.get(figure) for status in self.statuses_of("trainer"))
        newest = next((value for value in said if isinstance(value, int)), None)
        if newest is not None:
            return newest
        return saved[-1] if saved else 0

    def shards_ahead(self) -> int:
        """Return how many shards the trainer has not consumed yet."""
        trained = self.trained_shard_sequence()
        return sum(1 for sequence in self.shard_sequences.values() if sequence > trained)

    def statuses_of(self, service: str) -> list[ServiceStatus]:
        """Return the newest status of each instance of a service, newest first."""
        found = [status for status in self.statuses.values() if status.service == service]
        return sorted(found, key=lambda status: status.time, reverse=True)

    def training_documents(self) -> list[DocumentAccepted]:
        """Return the documents that data may be made from."""
        return [
            document
            for document in self.documents.values()
            if document.split == "training" and document.document_id not in self.forgotten
        ]

    def held_out_documents(self) -> list[DocumentAccepted]:
        """Return the documents that a benchmark may be made from."""
        return [
            document
            for document in self.documents.values()
            if document.split == "held_out" and document.document_id not in self.forgotten
        ]

    def open_alarm(self) -> DiversityAlarmRaised | None:
        """Return the diversity alarm that nothing has cleared yet."""
        newest = self.alarms[-1] if self.alarms else None
        return newest if isinstance(newest, DiversityAlarmRaised) else None

    def unsettled(self) -> list[EvaluationCompleted]:
        """Return the evaluations without a verdict, oldest first."""
        return [event for event in self.evaluations.values() if event.evaluation_id not in self.verdicts]

    def not_evaluated(self) -> list[VerdictReached]:
        """Return the verdicts on checkpoints that were never scored, in stream order."""
        scored = {event.checkpoint_id for event in self.evaluations.values()}
        told = self.verdicts.values()
        return [verdict for verdict in told if verdict.checkpoint_id and verdict.checkpoint_id not in scored]

    def newest_batch(self, version: int) -> BatchGenerated | None:
        """Return the newest batch of a version that is neither given up nor withdrawn."""
        withdrawn = [taken.request_sequence_max for taken in self.quarantines.values() if taken.version == version]
        usable = [
            batch
            for batch in self.batches.values()
            if batch.generator_version == version
            and batch.batch_id not in self.voided
            and batch.sequence > max(withdrawn, default=0)
        ]
        return usable[-1] if usable else None

    def accounting(self) -> Accounting:
        """Count where everything is."""
        made = sum(1 for request_id in self.voided if request_id in self.batches)
        buried = sum(1 for batch_id in self.batches if batch_id in self.voided and batch_id not in self.shards)
        return Accounting(
            requests=len(self.requests),
            batches=len(self.batches),
            voided=len(self.voided) - made,
            open_requests=len(self.unmade_requests()),
            shards=len(self.shards),
            open_batches=sum(1 for batch_id in self.batches if batch_id not in self.shards) - buried,
            lost=sum(1 for batch_id in self.batches if batch_id not in self.requests)
            + sum(1 for shard in self.shards.values() if shard.batch_id not in self.batches),
            buried_batches=buried,
        )


def _document(state: Projection, event: DocumentAccepted, _: int) -> None:
    state.documents.setdefault(event.document_id, event)


def _benchmark(state: Projection, event: BenchmarkFrozen, _: int) -> None:
    state.benchmarks.setdefault(event.generation, event)


def _renewal(state: Projection, event: BenchmarkRenewalRequested, _: int) -> None:
    asked = state.renewals.setdefault(event.generation, [])
    if all(known.event_id != event.event_id for known in asked):
        asked.append(event)


def _renewal_refused(state: Projection, event: BenchmarkRenewalRefused, _: int) -> None:
    refused = state.renewals_refused.setdefault(event.generation, [])
    if all(known.event_id != event.event_id for known in refused):
        refused.append(event)


def _base(state: Projection, event: BaseModelImported, _: int) -> None:
    state.base = state.base or event


def _request(state: Projection, event: GenerationRequested, sequence: int) -> None:
    if sequence:
        state.request_places[sequence] = event.request_id
    if event.request_id in state.requests:
        return
    documents = tuple(item.document_id for item in event.items)
    state.requests[event.request_id] = Issued(event.request_id, event.generator_version, event.sequence, documents)
    if event.request_id not in state.voided or event.request_id in state.batches:
        for document_id in documents:
            state.uses.setdefault(document_id, []).append(event.sequence)


def _batch(state: Projection, event: BatchGenerated, sequence: int) -> None:
    if sequence:
        state.batch_places[sequence] = event.batch_id
    state.batches.setdefault(event.batch_id, event)


def _voided(state: Projection, event: GenerationVoided, sequence: int) -> None:
    """What was not made counts as not asked for: its documents come first again."""
    if sequence:
        state.void_places.add(sequence)
    if event.request_id in state.voided:
        return
    state.voided[event.request_id] = event
    issued = state.requests.get(event.request_id)
    if issued is None or event.request_id in state.batches:
        return
    for document_id in issued.document_ids:
        state.uses[document_id].remove(issued.sequence)


def _shard(state: Projection, event: ShardCurated, sequence: int) -> None:
    state.shards.setdefault(event.shard_id, event)
    state.shard_sequences.setdefault(event.shard_id, sequence)


def _checkpoint(state: Projection, event: CheckpointSaved, _: int) -> None:
    state.checkpoints.setdefault(event.checkpoint_id, event)


def _evaluation(state: Projection, event: EvaluationCompleted, _: int) -> None:
    state.evaluations.setdefault(event.evaluation_id, event)


def _verdict(state: Projection, event: VerdictReached, _: int) -> None:
    state.verdicts.setdefault(event.evaluation_id, event)


def _confirmation_request(state: Projection, event: ConfirmationRequested, _: int) -> None:
    state.confirmation_requests.setdefault(event.evaluation_id, event)


def _confirmation(state: Projection, event: ConfirmationCompleted, _: int) -> None:
    state.confirmations.setdefault((event.evaluation_id, event.opening), event)


def _shadow_request(state: Projection, event: ShadowRequested, _: int) -> None:
    state.shadow_requests.setdefault(event.evaluation_id, event)


def _shadow_batch(state: Projection, event: ShadowGenerated, _: int) -> None:
    state.shadow_batches.setdefault(event.evaluation_id, event)


def _shadow_failure(state: Projection, event: ShadowFailed, _: int) -> None:
    state.shadow_failures.setdefault(event.evaluation_id, event)


def _shadow(state: Projection, event: ShadowJudged, _: int) -> None:
    state.shadows.setdefault(event.evaluation_id, event)


def _alarm(state: Projection, event: Alarm, _: int) -> None:
    if all((type(known), known.shard_id) != (type(event), event.shard_id) for known in state.alarms):
        state.alarms.append(event)


def _quarantine(state: Projection, event: VersionQuarantined, _: int) -> None:
    state.quarantines.setdefault(event.ledger_sequence, event)


def _forgotten(state: Projection, event: DocumentForgotten, _: int) -> None:
    state.forgotten.setdefault(event.document_id, event)


def _rewind(state: Projection, event: RewindRequested, _: int) -> None:
    state.rewinds.setdefault(event.ledger_sequence, event)


def _flip(state: Projection, event: Flip, _: int) -> None:
    state.flips.setdefault(event.ledger_sequence, event)


def _load(state: Projection, event: Load, _: int) -> None:
    state.loads[event.ledger_sequence, event.instance] = event
    if isinstance(event, GeneratorLoaded):
        state.serving[event.instance] = event.version


def _status(state: Projection, event: ServiceStatus, _: int) -> None:
    state.statuses[f"{event.service}/{event.instance}"] = event


_FOLDS: dict[type[Event], Callable[[Projection, Any, int], None]] = {
    DocumentAccepted: _document,
    BenchmarkFrozen: _benchmark,
    BenchmarkRenewalRequested: _renewal,
    BenchmarkRenewalRefused: _renewal_refused,
    BaseModelImported: _base,
    GenerationRequested: _request,
    BatchGenerated: _batch,
    GenerationVoided: _voided,
    ShardCurated: _shard,
    CheckpointSaved: _checkpoint,
    EvaluationCompleted: _evaluation,
    VerdictReached: _verdict,
    ConfirmationRequested: _confirmation_request,
    ConfirmationCompleted: _confirmation,
    ShadowRequested: _shadow_request,
    ShadowGenerated: _shadow_batch,
    ShadowFailed: _shadow_failure,
    ShadowJudged: _shadow,
    DiversityAlarmRaised: _alarm,
    DiversityAlarmCleared: _alarm,
    VersionQuarantined: _quarantine,
    DocumentForgotten: _forgotten,
    RewindRequested: _rewind,
    GeneratorPromoted: _flip,
    GeneratorRolledBack: _flip,
    GeneratorLoaded: _load,
    GeneratorLoadFailed: _load,
    ServiceStatus: _status,
}

CHANNELS: tuple[str, ...] = tuple(dict.fromkeys(event.channel for event in _FOLDS))
