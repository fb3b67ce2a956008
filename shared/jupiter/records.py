"""The plain data that services store and exchange by reference.

Owns: the shape of a published document, a stored document, a sample, and a manifest.
Does not know: where they are stored (`keys`, `blobs`) nor how they travel (`events`, `bus`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

__all__ = [
    "BlobRef",
    "Chunk",
    "Document",
    "DocumentKind",
    "Manifest",
    "Origin",
    "PublishedDocument",
    "Record",
    "Sample",
    "Sampling",
    "SharedRecord",
    "Split",
    "canonical_json",
    "digest_of",
    "sample_id_of",
]

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Split = Literal["training", "held_out"]
DocumentKind = Literal["text", "api", "example"]
Origin = Literal["synthetic", "real"]

DOCUMENT_CHARS_MAX = 1_000_000


def canonical_json(value: Any) -> bytes:
    """Return the one JSON encoding (sorted keys, no spaces, UTF-8) that digests are taken over."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest_of(*parts: Any) -> str:
    """Return the sha256 (hex) over the canonical JSON of `parts`: the source of every deterministic id."""
    return hashlib.sha256(canonical_json(list(parts))).hexdigest()


def sample_id_of(request_id: str, index: int) -> str:
    """Return the id of the synthetic sample that is made of a request's item."""
    return digest_of(request_id, index)


class Record(BaseModel):
    """Frozen, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SharedRecord(Record):
    """What services of two releases read of each other: a field that the reader does not know stays as it came.

    It stays, so whoever passes the record on, compares it or takes its digest has all of it. What would be misread
    without a new field gets another `schema_version`, which older readers refuse.
    """

    model_config = ConfigDict(extra="allow")


class PublishedDocument(Record):
    """What a user publishes on `documents.<domain>`: plain JSON, no headers needed."""

    text: str = Field(min_length=1, max_length=DOCUMENT_CHARS_MAX)
    """The document, UTF-8."""
    source: str = Field(min_length=1, max_length=2_000)
    """Where it comes from: a URI, a path or a name. Kept with every sample made from it."""
    title: str | None = Field(default=None, max_length=500)
    """For `api` documents, the full name of what the text describes (`json.dumps`)."""
    kind: DocumentKind = "text"
    """`text`: prose or code. `api`: a reference entry for `title`. `example`: a doctest session."""
    group: str | None = Field(default=None, max_length=500)
    """Documents of one group are never split between training and benchmark unless `split` says so,
    and are resampled together in the statistics. Default: the source."""
    split: Literal["auto", "training", "held_out"] = "auto"
    """`auto`: a hash of the group decides (`curator.held_out_fraction`)."""
    license: str | None = Field(default=None, max_length=200)
    metadata: Mapping[str, str] = Field(default_factory=dict)


class Document(SharedRecord):
    """A document as stored under `documents/<domain>/<document_id>`; `document_id` = sha256 of the normalised text."""

    document_id: Sha256
    domain: str
    text: str
    source: str
    title: str | None
    kind: DocumentKind
    group: str
    split: Split
    license: str | None = None
    metadata: Mapping[str, str] = Field(default_factory=dict)


class Chunk(Record):
    """A passage of one document: what a generation prompt is grounded in."""

    document_id: Sha256
    index: int
    text: str
    title: str | None = None


class Sampling(SharedRecord):
    """How tokens are drawn. `temperature` 0 means greedy."""

    temperature: float = Field(default=0.7, ge=0, le=5)
    top_p: float = Field(default=0.95, gt=0, le=1)
    max_new_tokens: int = Field(default=96, ge=1, le=8192)


class Sample(SharedRecord):
    """One training sample, synthetic or real.

    Training text is `instruction` and `response` (closed book: the passage is not in it). A sample with
    `instruction` None is a plain document. `loss_on` names the tokens that are learned.
    """

    sample_id: Sha256
    origin: Origin
    instruction: str | None
    response: str
    loss_on: Literal["response", "all"] = "response"
    document_id: Sha256
    chunk_index: int = 0
    task: str
    """The task type that made it (`question_answer`, …), or `document` for real text."""
    # What regenerates a synthetic sample; None for real ones.
    template: str | None = None
    prompt: str | None = None
    """The grounded prompt as the generator saw it."""
    own_prompt: str | None = None
    """The end of a few-shot prompt that is about this passage; None where no worked examples stood before it."""
    seed: int | None = None
    sampling: Sampling | None = None
    generator_version: int | None = None
    finish_reason: Literal["stop", "length"] | None = None
    completion: str | None = None
    """The generator's raw output before it was parsed into instruction and response."""
    test: str | None = None
    """For code tasks: the test that the response must pass in the sandbox."""


class BlobRef(SharedRecord):
    """One immutable object: its logical name, its key, and what its bytes must be."""

    name: str
    key: str
    size: int = Field(ge=0)
    sha256: Sha256


class Manifest(SharedRecord):
    """The commit record of one unit of work (DESIGN §4). `details` holds what the kind documents."""

    schema_version: Literal[1] = 1
    kind: Literal["batch", "shard", "checkpoint", "benchmark", "evaluation", "generator", "base_model"]
    domain: str
    work_id: str
    created_at: str
    """RFC 3339, UTC."""
    files: tuple[BlobRef, ...] = ()
    details: Mapping[str, Any] = Field(default_factory=dict)

    def file(self, name: str) -> BlobRef:
        """Return the file called `name`; raises KeyError when the manifest has none."""
        for ref in self.files:
            if ref.name == name:
                return ref
        raise KeyError(f"manifest {self.work_id} has no file {name!r}; it has {[ref.name for ref in self.files]}")
