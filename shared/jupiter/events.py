"""Every event of the cycle: past-tense facts, small, frozen, carrying keys and digests and never payloads.

Owns: the schemas, their channel (subject prefix) and their deterministic ids.
Does not know: how an event travels (`bus`) or what a handler does with it.

`docs/events.md` and `docs/asyncapi.yaml` are generated from these models.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from jupiter.records import DocumentKind, Sampling, Split, digest_of

__all__ = [
    "EVENT_BYTES_MAX",
    "BaseModelImported",
    "BatchGenerated",
    "BenchmarkFrozen",
    "CheckpointSaved",
    "DocumentAccepted",
    "EvaluationCompleted",
    "Event",
    "GenerationItem",
    "GenerationRequested",
    "GenerationVoided",
    "GeneratorLoadFailed",
    "GeneratorLoaded",
    "GeneratorPromoted",
    "GeneratorRolledBack",
    "ServiceStatus",
    "ShardCurated",
    "VerdictReached",
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

    schema_version: Literal[1] = 1
    domain: Domain

    @classmethod
    def type_name(cls) -> str:
        """Return the CloudEvents type, e.g. `jupiter.BatchGenerated`."""
        return f"jupiter.{cls.__name__}"

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
    """The evaluator froze a benchmark from held-out documents; nothing in it is ever trained on."""

    channel: ClassVar[str] = "benchmarks"
    identity: ClassVar[tuple[str, ...]] = ("digest",)
    digest: Sha256
    manifest_key: str
    manifest_sha256: Sha256
    items: int
    clusters: int


class BaseModelImported(Event):
    """A generator service converted the base model and recorded its golden outputs: it can be version 1."""

    channel: ClassVar[str] = "models"
    identity: ClassVar[tuple[str, ...]] = ("manifest_sha256",)
    manifest_key: str
    manifest_sha256: Sha256
    name: str


class GenerationItem(BaseModel):
    """One sample to make: which passage, which task, which seed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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
    """The controller's gate decided on an evaluation."""

    channel: ClassVar[str] = "verdicts"
    identity: ClassVar[tuple[str, ...]] = ("evaluation_id",)
    evaluation_id: Sha256
    decision: Literal["PROMOTE", "HOLD", "REJECT", "INVALID"]
    reasons: tuple[str, ...]
    verdict_key: str


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
