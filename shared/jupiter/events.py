"""Every event of the cycle: past-tense facts, small, frozen, carrying keys and digests and never payloads.

Owns: the schemas, their channel (subject prefix) and their deterministic ids.
Does not know: how an event travels (`bus`) or what a handler does with it.

`docs/events.md` and `docs/asyncapi.yaml` are generated from these models.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from jupiter.evolution import Upcast
from jupiter.records import DocumentKind, Sampling, SharedRecord, Split, digest_of

__all__ = [
    "EVENT_BYTES_MAX",
    "BaseModelImported",
    "BatchGenerated",
    "BenchmarkFrozen",
    "BenchmarkRenewalRefused",
    "BenchmarkRenewalRequested",
    "CheckpointSaved",
    "ConfirmationCompleted",
    "ConfirmationRequested",
    "DiversityAlarmCleared",
    "DiversityAlarmRaised",
    "DocumentAccepted",
    "DocumentForgotten",
    "EvaluationCompleted",
    "Event",
    "GenerationItem",
    "GenerationRequested",
    "GenerationVoided",
    "GeneratorLoadFailed",
    "GeneratorLoaded",
    "GeneratorPromoted",
    "GeneratorRolledBack",
    "RewindRequested",
    "ServiceStatus",
    "ShadowFailed",
    "ShadowGenerated",
    "ShadowJudged",
    "ShadowRequested",
    "ShardCurated",
    "VerdictReached",
    "VersionQuarantined",
    "event_types",
]

EVENT_BYTES_MAX = 64 * 1024

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Domain = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,62}$")]


class Event(BaseModel):
    """Base of all events. `identity` names the fields that make the id: the same fact has the same id."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    channel: ClassVar[str]
    identity: ClassVar[tuple[str, ...]]
    upcasts: ClassVar[Mapping[int, Upcast]] = {}
    """Schema version -> how its body becomes one of the next; for every version before this one (`evolution`)."""

    schema_version: Literal[1] = 1
    domain: Domain

    @classmethod
    def type_name(cls) -> str:
        """Return the CloudEvents type, e.g. `jupiter.BatchGenerated`."""
        return f"jupiter.{cls.__name__}"

    @classmethod
    def current_version(cls) -> int:
        """Return the schema version that this code publishes."""
        return int(cls.model_fields["schema_version"].default)

    @property
    def subject(self) -> str:
        return f"{self.channel}.{self.domain}"

    @property
    def event_id(self) -> str:
        """Return the deterministic `ce-id`: a digest over domain, type and the identity fields (DESIGN §3)."""
        dumped = self.model_dump(mode="json", include=set(self.identity))
        return digest_of(self.domain, self.type_name(), dumped)


class DocumentAccepted(Event):
    """The curator stored a published document and decided its split."""

    channel: ClassVar[str] = "corpus"
    identity: ClassVar[tuple[str, ...]] = ("document_id",)
    document_id: Sha256
    key: str
    kind: DocumentKind
    title: str | None = None
    group: str
    source: str
    split: Split
    chars: int = Field(ge=1)
    chunks: int = Field(ge=1)


class BenchmarkFrozen(Event):
    """The evaluator froze a benchmark from held-out documents; nothing in it is trained on from now on."""

    channel: ClassVar[str] = "benchmarks"
    identity: ClassVar[tuple[str, ...]] = ("digest",)
    # The field that version 2 added may be absent, so a body of version 1 is one of 2 as it stands.
    upcasts: ClassVar[Mapping[int, Upcast]] = {1: lambda body: body}

    schema_version: Literal[2] = 2  # type: ignore[assignment]
    digest: Sha256
    manifest_key: str
    manifest_sha256: Sha256
    items: int
    clusters: int
    generation: int = Field(default=1, ge=1)
    """The newest one is in use."""


class BenchmarkRenewalRequested(Event):
    """A benchmark's sealed half is used up, or a person wants another one: the evaluator shall freeze the next.

    The same documents and size are the same question, which is asked once.
    """

    channel: ClassVar[str] = "benchmarks"
    identity: ClassVar[tuple[str, ...]] = ("generation", "documents", "samples")
    generation: int = Field(ge=2)
    """The one to be frozen."""
    documents: int = Field(ge=0)
    """Held-out documents of sources that no benchmark has used, when it was asked for."""
    samples: int = Field(ge=1)
    """Items that it shall have: `self_improvement.benchmark_samples`."""
    actor: str
    reason: str


class BenchmarkRenewalRefused(Event):
    """The held-out documents do not give another benchmark: the one in use stays."""

    channel: ClassVar[str] = "benchmarks"
    identity: ClassVar[tuple[str, ...]] = ("generation", "documents", "samples")
    generation: int = Field(ge=2)
    documents: int = Field(ge=0)
    """As in the request."""
    samples: int = Field(ge=1)
    reason: str


class BaseModelImported(Event):
    """A generator service converted the base model and recorded its golden outputs: it can be version 1."""

    channel: ClassVar[str] = "models"
    identity: ClassVar[tuple[str, ...]] = ("manifest_sha256",)
    manifest_key: str
    manifest_sha256: Sha256
    name: str


class GenerationItem(SharedRecord):
    """One sample to make: which passage, which task, which seed."""

    document_id: Sha256
    chunk_index: int = Field(ge=0)
    task: str
    audience: str
    difficulty: str
    seed: int = Field(ge=0)


class GenerationRequested(Event):
    """The controller asks for one batch from one generator version."""

    channel: ClassVar[str] = "generation"
    identity: ClassVar[tuple[str, ...]] = ("request_id",)
    request_id: Sha256
    generator_version: int = Field(ge=1)
    sequence: int = Field(ge=1)
    items: tuple[GenerationItem, ...] = Field(min_length=1, max_length=256)
    sampling: Sampling


class BatchGenerated(Event):
    """A generator committed a batch; `batch_id` is the request's id."""

    channel: ClassVar[str] = "batches"
    identity: ClassVar[tuple[str, ...]] = ("batch_id",)
    batch_id: Sha256
    generator_version: int
    sequence: int
    manifest_key: str
    manifest_sha256: Sha256
    samples: int
    tokens: int
    seconds: float


class GenerationVoided(Event):
    """A request will not be fulfilled because its generator version is no longer current."""

    channel: ClassVar[str] = "batches"
    identity: ClassVar[tuple[str, ...]] = ("request_id",)
    request_id: Sha256
    generator_version: int
    reason: str


class ShardCurated(Event):
    """The curator committed the shard made from one batch plus real data; `shard_id` is the batch's id."""

    channel: ClassVar[str] = "shards"
    identity: ClassVar[tuple[str, ...]] = ("shard_id",)
    shard_id: Sha256
    batch_id: Sha256
    generator_version: int
    manifest_key: str
    manifest_sha256: Sha256
    samples: int
    tokens: int
    real_tokens: int
    accepted: int
    candidates: int
    dropped: Mapping[str, int] = Field(default_factory=dict)
    batch_sequence: int | None = None
    """The sequence of the batch's request."""
    diversity: Mapping[str, float] = Field(default_factory=dict)
    """The synthetic part's figures by name, beside `real.<name>` of the real data: what the breaker judges."""
    contaminated: int | None = None
    """Samples that overlap with the frozen benchmark; the manifest names the items. None: nobody counted."""


class CheckpointSaved(Event):
    """The trainer committed a whole checkpoint; `checkpoint_id` = digest of (domain, run, step)."""

    channel: ClassVar[str] = "checkpoints"
    identity: ClassVar[tuple[str, ...]] = ("checkpoint_id",)
    checkpoint_id: Sha256
    run: str
    step: int
    tokens_seen: int
    loss: float
    shard_sequence: int
    manifest_key: str
    manifest_sha256: Sha256


class EvaluationCompleted(Event):
    """The evaluator committed a report on one checkpoint against one generator version."""

    channel: ClassVar[str] = "evaluations"
    identity: ClassVar[tuple[str, ...]] = ("evaluation_id",)
    evaluation_id: Sha256
    checkpoint_id: Sha256
    run: str
    step: int
    generator_version: int
    benchmark_digest: Sha256
    items: int
    candidate_score: float
    generator_score: float
    difference: float
    ci_low: float
    ci_high: float
    manifest_key: str
    manifest_sha256: Sha256


class VerdictReached(Event):
    """The controller's gate decided on an evaluation, or there was none to decide on: then it is INVALID."""

    channel: ClassVar[str] = "verdicts"
    identity: ClassVar[tuple[str, ...]] = ("evaluation_id",)
    # The fields that version 2 added may be absent, so a body of version 1 is one of 2 as it stands.
    upcasts: ClassVar[Mapping[int, Upcast]] = {1: lambda body: body}

    schema_version: Literal[2] = 2  # type: ignore[assignment]
    evaluation_id: Sha256
    """Of an evaluation that could not be made: one that follows from its dead letter."""
    decision: Literal["PROMOTE", "HOLD", "REJECT", "INVALID"]
    reasons: tuple[str, ...]
    verdict_key: str
    verdict_sha256: Sha256 | None = None
    """Of the stored verdict, which names the digest of its inputs: neither can be rewritten unseen."""
    checkpoint_id: Sha256 | None = None


class GeneratorPromoted(Event):
    """The ledger now names `version` as the current generator (version 1: the base was registered)."""

    channel: ClassVar[str] = "generators"
    identity: ClassVar[tuple[str, ...]] = ("ledger_sequence",)
    version: int
    previous_version: int | None
    ledger_sequence: int
    manifest_key: str
    manifest_sha256: Sha256
    reason: str


class GeneratorRolledBack(Event):
    """The ledger names an earlier `version` as current again."""

    channel: ClassVar[str] = "generators"
    identity: ClassVar[tuple[str, ...]] = ("ledger_sequence",)
    version: int
    previous_version: int
    ledger_sequence: int
    manifest_key: str
    manifest_sha256: Sha256
    reason: str


class GeneratorLoaded(Event):
    """A generator instance attested and now serves `version`."""

    channel: ClassVar[str] = "loads"
    identity: ClassVar[tuple[str, ...]] = ("instance", "ledger_sequence")
    version: int
    ledger_sequence: int
    instance: str
    manifest_sha256: Sha256
    seconds: float


class GeneratorLoadFailed(Event):
    """A generator instance refused `version` and goes on serving the one before."""

    channel: ClassVar[str] = "loads"
    identity: ClassVar[tuple[str, ...]] = ("instance", "ledger_sequence")
    version: int
    ledger_sequence: int
    instance: str
    reason: str


class ConfirmationRequested(Event):
    """The development half said PROMOTE: the evaluator shall open the sealed half for this evaluation.

    The opening stands in the ledger before it is asked for, so it is spent whatever comes of it.
    """

    channel: ClassVar[str] = "confirmations"
    identity: ClassVar[tuple[str, ...]] = ("evaluation_id",)
    evaluation_id: Sha256
    checkpoint_id: Sha256
    opening: int = Field(ge=1)
    """Which opening of this benchmark's sealed half it is: k of the error spending."""
    ledger_sequence: int
    report_manifest_key: str
    """The evaluation on the development half, which names checkpoint, generator, benchmark and prompts."""
    report_manifest_sha256: Sha256


class ConfirmationCompleted(Event):
    """The evaluator scored both models on the sealed half, with the prompts chosen before."""

    channel: ClassVar[str] = "evaluations"
    identity: ClassVar[tuple[str, ...]] = ("evaluation_id", "opening")
    evaluation_id: Sha256
    opening: int
    items: int
    candidate_score: float
    generator_score: float
    difference: float
    manifest_key: str
    manifest_sha256: Sha256


class ShadowRequested(Event):
    """The sealed half agreed: a generator shall load the candidate and repeat batches that the incumbent made."""

    channel: ClassVar[str] = "shadows"
    identity: ClassVar[tuple[str, ...]] = ("evaluation_id",)
    evaluation_id: Sha256
    checkpoint_id: Sha256
    checkpoint_manifest_key: str
    checkpoint_manifest_sha256: Sha256
    generator_version: int
    """The incumbent whose batch is repeated."""
    batch_id: Sha256
    """The incumbent's batch: its manifest holds the items and the sampling to repeat."""
    batch_manifest_key: str
    batch_manifest_sha256: Sha256


class ShadowGenerated(Event):
    """A generator committed the candidate's batch; it never becomes training data."""

    channel: ClassVar[str] = "shadows"
    identity: ClassVar[tuple[str, ...]] = ("evaluation_id", "manifest_sha256")
    evaluation_id: Sha256
    batch_id: Sha256
    """The incumbent's batch on the same items."""
    batch_manifest_key: str
    batch_manifest_sha256: Sha256
    manifest_key: str
    """The candidate's batch, `evaluations/<domain>/<evaluation_id>/shadow/batch/manifest.json`."""
    manifest_sha256: Sha256


class ShadowFailed(Event):
    """A generator could not make the candidate's batch: its weights do not load, or are not the recorded ones."""

    channel: ClassVar[str] = "shadows"
    identity: ClassVar[tuple[str, ...]] = ("evaluation_id", "instance")
    evaluation_id: Sha256
    instance: str
    reason: str


class ShadowJudged(Event):
    """The curator judged both batches by the same rules and the same earlier data."""

    channel: ClassVar[str] = "shadows"
    identity: ClassVar[tuple[str, ...]] = ("evaluation_id",)
    evaluation_id: Sha256
    manifest_key: str
    """`evaluations/<domain>/<evaluation_id>/shadow/judgement/manifest.json`, whose details are `reports.Shadow`."""
    manifest_sha256: Sha256
    candidate_accepted: int
    incumbent_accepted: int
    items: int


class DiversityAlarmRaised(Event):
    """The diversity of generated data fell past its bounds: real data is raised, promotions pause."""

    channel: ClassVar[str] = "alarms"
    identity: ClassVar[tuple[str, ...]] = ("shard_id",)
    shard_id: Sha256
    """The shard whose figures tripped it."""
    generator_version: int
    alarms: tuple[str, ...]
    """One line per figure: name, value, bound."""


class DiversityAlarmCleared(Event):
    """The figures are back within bounds for as long as the rule asks."""

    channel: ClassVar[str] = "alarms"
    identity: ClassVar[tuple[str, ...]] = ("shard_id",)
    shard_id: Sha256
    generator_version: int
    figures: tuple[str, ...] = ()


class VersionQuarantined(Event):
    """A rollback took a version's data back: its batches and shards until here are left out from now on."""

    channel: ClassVar[str] = "withdrawals"
    identity: ClassVar[tuple[str, ...]] = ("ledger_sequence",)
    ledger_sequence: int
    """The rollback's ledger entry, which records it."""
    version: int
    request_sequence_max: int
    """Batches of this version with a request sequence up to this one are out; later ones (promoted anew) are not."""
    reason: str


class DocumentForgotten(Event):
    """A document is withdrawn: no sample is made of it, and none of it enters a shard or is trained on again."""

    channel: ClassVar[str] = "withdrawals"
    identity: ClassVar[tuple[str, ...]] = ("document_id",)
    document_id: Sha256
    actor: str
    reason: str


class RewindRequested(Event):
    """The trainer shall go back to a checkpoint and train on from there, without what was withdrawn."""

    channel: ClassVar[str] = "withdrawals"
    identity: ClassVar[tuple[str, ...]] = ("ledger_sequence",)
    ledger_sequence: int
    run: str
    """The run that goes back, by the name that it was begun with."""
    checkpoint_id: Sha256 | None
    """The last checkpoint without any of it; None: there is none, the run begins anew from its starting model."""
    checkpoint_manifest_key: str | None
    checkpoint_manifest_sha256: Sha256 | None
    reason: str


class ServiceStatus(Event):
    """What one service instance is doing now; only the last one per instance is kept."""

    channel: ClassVar[str] = "status"
    identity: ClassVar[tuple[str, ...]] = ("service", "instance", "time")
    service: str
    instance: str
    time: str
    """RFC 3339, UTC."""
    stage: str
    """`idle`, `waiting`, `loading`, `generating`, `curating`, `training`, `evaluating`, …"""
    detail: str = ""
    done: float | None = None
    total: float | None = None
    unit: str = ""
    """What `done` and `total` count: `samples`, `steps`, `items`."""
    rate_per_s: float | None = None
    figures: Mapping[str, Any] = Field(default_factory=dict)

    @property
    def subject(self) -> str:
        return f"{self.channel}.{self.domain}.{self.service}.{self.instance}"


def event_types() -> Mapping[str, type[Event]]:
    """Return every event class by its CloudEvents type."""

    def walk(cls: type[Event]) -> Iterator[type[Event]]:
        for child in cls.__subclasses__():
            yield child
            yield from walk(child)

    return {cls.type_name(): cls for cls in walk(Event)}
