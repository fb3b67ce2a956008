"""How much of the benchmark the shards of a checkpoint hold, by the counts of curator and evaluator.

Owns: adding up what is stored about the checkpoint's shards; each count is read once, for none ever changes.
Does not know: the overlap rule (`jupiter.overlap`), what follows from an overlap (the gate).

The manifests count, not the shards' events: nothing then depends on how far a stream was read. Shards that were made
under another benchmark were counted by the evaluator before it evaluated the checkpoint. Synchronous; call through
`asyncio.to_thread`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from jupiter.blobs import Blobs
from jupiter.contamination import ShardCount, find_count
from jupiter.controller.consumption import consumption
from jupiter.errors import IntegrityError, Rejected
from jupiter.events import CheckpointSaved
from jupiter.reports import Contamination

__all__ = ["Contaminations"]

READERS = 8
"""Manifests read at a time: each is small, the time goes into waiting."""
OTHER = "other"
"""In the place of a half: worked examples and texts of the general suite."""


class Contaminations:
    """What is known of one domain's shards."""

    def __init__(self, blobs: Blobs, domain: str) -> None:
        self._blobs, self._domain = blobs, domain
        self._counts: dict[tuple[str, str], ShardCount] = {}
        """By benchmark digest and shard id."""

    def of(self, checkpoint: CheckpointSaved, *, benchmark_digest: str) -> Contamination:
        """Return what the checkpoint was trained on. Raises Rejected when it is no longer stored."""
        fed = consumption(self._blobs, [checkpoint]).get(checkpoint.checkpoint_id)
        if fed is None:
            raise Rejected(
                f"checkpoint {checkpoint.checkpoint_id[:12]} is no longer stored, nor is what it was trained on"
            )
        shards = sorted(set(fed.shards))
        counted = self._read(shards, benchmark_digest)
        items = {name: half for one in counted for name, half in one.items.items()}
        return Contamination(
            benchmark_digest=benchmark_digest,
            shards=len(shards),
            uncounted=len(shards) - len(counted),
            samples=sum(one.samples for one in counted),
            items=dict(sorted(Counter(half or OTHER for half in items.values()).items())),
        )

    def _read(self, shard_ids: Sequence[str], benchmark_digest: str) -> list[ShardCount]:
        """Return the counts that there are."""
        new = [shard_id for shard_id in shard_ids if (benchmark_digest, shard_id) not in self._counts]
        with ThreadPoolExecutor(READERS) as pool:
            found = list(pool.map(lambda shard_id: self._count(shard_id, benchmark_digest), new))
        for shard_id, counted in zip(new, found, strict=True):
            if counted is not None:
                self._counts[benchmark_digest, shard_id] = counted
        known = [(benchmark_digest, shard_id) for shard_id in shard_ids]
        return [self._counts[place] for place in known if place in self._counts]

    def _count(self, shard_id: str, benchmark_digest: str) -> ShardCount | None:
        """A shard whose manifest cannot be read is one of which nobody knows: the gate says so."""
        try:
            return find_count(self._blobs, self._domain, shard_id, benchmark_digest=benchmark_digest)
        except IntegrityError:
            return None
