"""What shards consist of: how many samples of which document and which template.

Owns: reading it from their manifests, and the samples themselves where they are asked for, or where one document has to
be told from the others.
Does not know: why somebody asks (`recall`, `lineage`). Synchronous; call through `asyncio.to_thread`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from jupiter import manifests
from jupiter.blobs import Blobs
from jupiter.controller.views import View
from jupiter.events import ShardCurated
from jupiter.records import Manifest, Sample
from jupiter.sample_files import read_parquet

__all__ = ["Content", "SampleLine", "contents", "samples_of", "without"]

READERS = 8
"""Manifests read at a time: each is small, the time goes into waiting."""
SAMPLES_FILE = "samples.parquet"


class SampleLine(View):
    """One training sample, and what it was made from."""

    sample_id: str
    origin: str
    document_id: str
    template: str | None
    """None for a real passage."""


@dataclass(frozen=True, kw_only=True)
class Content:
    """One shard."""

    shard: ShardCurated
    documents: Mapping[str, int]
    """Document -> synthetic samples grounded in it."""
    templates: Mapping[str, int]
    """Template -> synthetic samples made with it."""
    real_documents: Mapping[str, Sequence[int]]
    """Document -> its passages that stand in the shard as real text."""
    samples: tuple[SampleLine, ...] | None = None
    """None: they were not asked for."""

    @property
    def synthetic(self) -> int:
        return sum(self.documents.values())

    @property
    def real(self) -> int:
        return sum(len(passages) for passages in self.real_documents.values())

    def has(self, document_id: str) -> bool:
        return document_id in self.documents or document_id in self.real_documents


def contents(blobs: Blobs, shards: Iterable[ShardCurated], *, samples: bool = False) -> dict[str, Content]:
    """Return what the shards hold, by id, in the order given; with their samples or without.

    Raises NotFound, IntegrityError.
    """
    with ThreadPoolExecutor(READERS) as pool:
        found = pool.map(lambda shard: _content(blobs, shard, samples=samples), shards)
        return {one.shard.shard_id: one for one in found}


def without(blobs: Blobs, content: Content, document_ids: Collection[str]) -> Content:
    """Return what the shard holds of other documents. Raises NotFound, IntegrityError.

    Only the samples say which template a document's were made with.
    """
    if not any(content.has(document_id) for document_id in document_ids):
        return content
    known = content.samples if content.samples is not None else _lines(_samples(blobs, content.shard))
    kept = tuple(line for line in known if line.document_id not in document_ids)
    return replace(
        content,
        **_counts(kept),
        real_documents={key: value for key, value in content.real_documents.items() if key not in document_ids},
        samples=kept if content.samples is not None else None,
    )


def samples_of(blobs: Blobs, shard: ShardCurated, document_id: str) -> list[Sample]:
    """Return the shard's samples of a document, synthetic and real."""
    return [sample for sample in _samples(blobs, shard) if sample.document_id == document_id]


def _content(blobs: Blobs, shard: ShardCurated, *, samples: bool) -> Content:
    details = _manifest(blobs, shard).details
    counts = {"documents": details.get("documents"), "templates": details.get("templates")}
    # Curated before manifests said so: the samples do.
    unsaid = None in counts.values()
    lines = _lines(_samples(blobs, shard)) if samples or unsaid else ()
    return Content(
        shard=shard,
        **(_counts(lines) if unsaid else counts),
        real_documents=details.get("real_documents", {}),
        samples=lines if samples else None,
    )


def _counts(lines: Iterable[SampleLine]) -> dict[str, Any]:
    made = [line for line in lines if line.origin == "synthetic"]
    return {
        "documents": Counter(line.document_id for line in made),
        "templates": Counter(line.template or "" for line in made),
    }


def _lines(samples: Iterable[Sample]) -> tuple[SampleLine, ...]:
    return tuple(
        SampleLine(sample_id=one.sample_id, origin=one.origin, document_id=one.document_id, template=one.template)
        for one in samples
    )


def _samples(blobs: Blobs, shard: ShardCurated) -> list[Sample]:
    return read_parquet(manifests.download_bytes(blobs, _manifest(blobs, shard).file(SAMPLES_FILE)))


def _manifest(blobs: Blobs, shard: ShardCurated) -> Manifest:
    return manifests.read(blobs, shard.manifest_key, sha256=shard.manifest_sha256).manifest
