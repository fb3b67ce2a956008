"""What each checkpoint was trained on, read from its manifest.

Owns: the reading, and the question whether a shard or a document is in a checkpoint's weights.
Does not know: why somebody asks (`withdrawals`, `recall`, `lineage`).

The manifest is exact where the offset in the shards' stream is not: a run that was sent back, or that left out what was
withdrawn, is past shards that it never learned. Synchronous; call through `asyncio.to_thread`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from jupiter import manifests
from jupiter.blobs import Blobs
from jupiter.errors import NotFound
from jupiter.events import CheckpointSaved
from jupiter.withdrawals import Omission

__all__ = ["Consumed", "consumption"]

READERS = 8
"""Manifests read at a time: each is small, the time goes into waiting."""


@dataclass(frozen=True, kw_only=True)
class Consumed:
    """One stored checkpoint and its food."""

    checkpoint: CheckpointSaved
    shards: tuple[str, ...]
    """Ids of the shards whose samples it was trained on, in order."""
    omissions: tuple[Omission, ...]

    def shards_among(self, shard_ids: Iterable[str]) -> tuple[str, ...]:
        """Return which of the shards it was trained on."""
        own = set(self.shards)
        return tuple(shard_id for shard_id in shard_ids if shard_id in own)

    def learned_from(self, document_id: str, shard_sequences: Mapping[str, int]) -> tuple[str, ...]:
        """Return which of the shards, given with their stream sequences, it learned the document from.

        A shard that came after the document was left out gave it everything but that document.
        """
        since = [one.shard_sequence for one in self.omissions if one.withdrawn.has_document(document_id)]
        before = min(since, default=None)
        return tuple(
            shard_id
            for shard_id in self.shards_among(shard_sequences)
            if before is None or shard_sequences[shard_id] < before
        )


def consumption(blobs: Blobs, checkpoints: Iterable[CheckpointSaved]) -> dict[str, Consumed]:
    """Return what the checkpoints that are still stored were trained on, by id, in the order given."""
    with ThreadPoolExecutor(READERS) as pool:
        found = list(pool.map(lambda checkpoint: _read(blobs, checkpoint), checkpoints))
    return {one.checkpoint.checkpoint_id: one for one in found if one is not None}


def _read(blobs: Blobs, checkpoint: CheckpointSaved) -> Consumed | None:
    try:
        details = manifests.read(blobs, checkpoint.manifest_key, sha256=checkpoint.manifest_sha256).manifest.details
    except NotFound:  # collected: nobody can go back to it or serve it
        return None
    return Consumed(
        checkpoint=checkpoint,
        shards=tuple(details.get("shards", ())),
        omissions=tuple(Omission.model_validate(one) for one in details.get("omissions", ())),
    )
