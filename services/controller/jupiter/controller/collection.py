"""Garbage collection of checkpoints.

Owns: which checkpoints may go, and deleting them so that a reader never meets half of one: the manifest first, then
content that no other manifest names. Does not know: when (`conductor`).

Kept: the newest `keep_last_n_checkpoints` of each run, every checkpoint that the ledger or a generator version was made
from, every one that the trainer was sent back to, every one with an unsettled evaluation (a shadow batch may still have
to be made from it), every one whose PROMOTE verdict nobody acted on. The base is no checkpoint; its weights go only
where `always_keep_base_generator` is false and no recent flip has met it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from jupiter import keys, manifests
from jupiter.blobs import Blobs
from jupiter.ledger import LedgerEntry, flips
from jupiter.records import Record

__all__ = [
    "StoredCheckpoint",
    "base_collectable",
    "collectable",
    "delete",
    "delete_base_weights",
    "files_in_use",
]

BASE_VERSION = 1


class StoredCheckpoint(Record):
    """What decides a checkpoint's fate."""

    checkpoint_id: str
    run: str
    step: int
    evaluation: Literal["none", "open", "judged", "wanted"]
    """`none`: not evaluated yet. `open`: one of its evaluations is not settled. `wanted`: PROMOTE, and not acted on
    yet. `judged`: everything else, also one that could not be evaluated and is INVALID for that."""


def collectable(
    checkpoints: Sequence[StoredCheckpoint], *, referred: Iterable[str], keep_last_n: int
) -> tuple[StoredCheckpoint, ...]:
    """Return what may be deleted, oldest first. `referred`: ids of the checkpoints that versions are made of."""
    newest: set[str] = set()
    for run in {checkpoint.run for checkpoint in checkpoints}:
        of_run = sorted((c for c in checkpoints if c.run == run), key=lambda c: c.step, reverse=True)
        newest |= {checkpoint.checkpoint_id for checkpoint in of_run[:keep_last_n]}
    kept = newest | set(referred)
    spare = [c for c in checkpoints if c.checkpoint_id not in kept and c.evaluation == "judged"]
    return tuple(sorted(spare, key=lambda checkpoint: (checkpoint.run, checkpoint.step)))


def base_collectable(entries: Sequence[LedgerEntry], *, always_keep: bool, keep_last_n: int) -> bool:
    """Return whether the base's weights may go: only where the configuration allows it, and no recent flip met it."""
    flipped = flips(entries)
    recent = flipped[-keep_last_n - 1 :]
    return not always_keep and len(flipped) > keep_last_n and all(entry.version != BASE_VERSION for entry in recent)


def files_in_use(blobs: Blobs, domain: str, *, without: Iterable[str] = ()) -> set[str]:
    """Return the keys of every file that a generator version or a stored checkpoint names.

    `without`: manifest keys that do not count.
    """
    used: set[str] = set()
    for prefix in (f"generators/{domain}/", f"checkpoints/{domain}/"):
        for info in blobs.list(prefix):
            if info.key.endswith("/manifest.json") and info.key not in without:
                used |= {ref.key for ref in manifests.read(blobs, info.key).manifest.files}
    return used


def delete(blobs: Blobs, domain: str, checkpoints: Sequence[StoredCheckpoint]) -> int:
    """Delete the checkpoints and return the bytes freed; killed anywhere, the next call goes on.

    After its manifest is gone nobody begins to read a checkpoint. What is in use is asked only then, so a version
    created meanwhile keeps its files; who creates one later finds the manifest gone (`flips`). Raises NotFound when
    another collector works at the same time: try later.
    """
    prefixes = [keys.checkpoint_prefix(domain, checkpoint.run, checkpoint.step) for checkpoint in checkpoints]
    left = [prefix for prefix in prefixes if next(iter(blobs.list(f"{prefix}/")), None) is not None]
    for prefix in left:
        blobs.delete(keys.manifest_key(prefix))
    used = files_in_use(blobs, domain) if left else set()
    freed = 0
    for prefix in left:
        for info in list(blobs.list(f"{prefix}/")):
            if info.key not in used:
                blobs.delete(info.key)
                freed += info.size
    return freed


def delete_base_weights(blobs: Blobs, domain: str) -> int:
    """Delete version 1's weights, and return the bytes freed.

    Its tokenizer stays: the curator counts tokens with it. A rollback to version 1 is refused from then on.
    """
    key = keys.manifest_key(keys.generator_prefix(domain, BASE_VERSION))
    used = files_in_use(blobs, domain, without=(key,))
    freed = 0
    for ref in manifests.read(blobs, key).manifest.files:
        if ref.name.endswith(".safetensors") and ref.key not in used and blobs.stat(ref.key):
            blobs.delete(ref.key)
            freed += ref.size
    return freed
