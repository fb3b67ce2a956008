"""How much of a benchmark one shard holds, and where the count of it stands.

Owns: the count, and finding it: in the shard's manifest for the benchmark that the curator made it under, beside any
other benchmark for that one. Does not know: the overlap rule (`overlap`), nor what follows from an overlap.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from jupiter import keys, manifests
from jupiter.blobs import Blobs
from jupiter.errors import NotFound
from jupiter.records import SharedRecord, canonical_json

__all__ = ["ShardCount", "find_count", "keep_count"]


class ShardCount(SharedRecord):
    """What one shard holds of one benchmark."""

    benchmark: str
    """Its digest."""
    synthetic: int = Field(ge=0)
    """Samples that overlap with it."""
    real: int = Field(ge=0)
    items: Mapping[str, str] = Field(default_factory=dict)
    """Items that they overlap with, and the half of each; empty for what is of neither."""

    @property
    def samples(self) -> int:
        return self.synthetic + self.real


def find_count(blobs: Blobs, domain: str, shard_id: str, *, benchmark_digest: str) -> ShardCount | None:
    """Return what stands about the shard and that benchmark; None: nobody counted. Raises IntegrityError.

    The manifest is looked at first: a shard is nearly always asked about the benchmark that it was made under.
    """
    committed = manifests.find(blobs, keys.shard_prefix(domain, shard_id))
    counted = committed.manifest.details.get("contamination") if committed else None
    if counted and counted["benchmark"] == benchmark_digest:
        return ShardCount.model_validate(counted)
    try:
        return ShardCount.model_validate_json(blobs.get(keys.count_key(domain, benchmark_digest, shard_id)))
    except NotFound:
        return None


def keep_count(blobs: Blobs, domain: str, shard_id: str, counted: ShardCount) -> None:
    """Store a count if there is none yet: whoever counts finds the same."""
    blobs.create(keys.count_key(domain, counted.benchmark, shard_id), canonical_json(counted))
