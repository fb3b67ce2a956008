"""The history of the generator: a hash chain of objects `ledger/<domain>/<sequence>.json`, the one truth.

Owns: the entry, how its hash is taken, reading and verifying the chain, and the questions asked of it.
Does not know: when an entry is written (only the controller appends, by conditional create: that is the flip).

An entry is never edited; a rollback is a new entry.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, ValidationError

from jupiter import keys
from jupiter.blobs import Blobs
from jupiter.errors import IntegrityError, NotFound
from jupiter.records import Record, canonical_json

__all__ = [
    "GENESIS_HASH",
    "Action",
    "LedgerEntry",
    "current",
    "entry_hash",
    "entry_of_version",
    "live_at",
    "previous_live",
    "read_ledger",
    "verify",
]

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Action = Literal["registered", "promoted", "rolled_back"]

GENESIS_HASH = "0" * 64


class LedgerEntry(Record):
    """One flip: from now on `version` is the generator."""

    schema_version: Literal[1] = 1
    domain: str
    sequence: int = Field(ge=1)
    action: Action
    """`registered`: the base became version 1. `promoted`: forward. `rolled_back`: an earlier version again."""
    version: int = Field(ge=1)
    previous_version: int | None
    """What was live until now; None for the first entry."""
    checkpoint_id: Sha256 | None = None
    """The checkpoint that the version was made from; None for the base."""
    evaluation_id: Sha256 | None = None
    """The evaluation that justified a promotion."""
    manifest_key: str
    manifest_sha256: Sha256
    """The version's own manifest: which files it is made of."""
    evidence_sha256: Sha256 | None = None
    """sha256 of the verdict this flip rests on; None where there is none (registration, by hand)."""
    actor: str = Field(min_length=1, max_length=200)
    """`controller`, or who asked through the API."""
    reason: str = Field(min_length=1, max_length=2_000)
    time: str
    """RFC 3339, UTC."""
    idempotency_key: str | None = Field(default=None, max_length=200)
    """Of the request that asked for it: the same request never flips twice."""
    previous_hash: Sha256
    """sha256 of the entry before as stored; 64 zeros for the first."""


def entry_hash(entry: LedgerEntry) -> str:
    """Return the sha256 of the entry's stored bytes (its canonical JSON)."""
    return hashlib.sha256(canonical_json(entry)).hexdigest()


def read_ledger(blobs: Blobs, domain: str) -> tuple[LedgerEntry, ...]:
    """Return the whole verified chain, oldest first; empty before the base is registered. Raises IntegrityError.

    Read by number and not by listing: an entry that was just created is then always seen.
    """
    stored: list[bytes] = []
    while True:
        try:
            stored.append(blobs.get(keys.ledger_key(domain, len(stored) + 1)))
        except NotFound:
            break
    beyond = [info.key for info in blobs.list(keys.ledger_prefix(domain))]
    gaps = [key for key in beyond if key > keys.ledger_key(domain, len(stored) + 1)]
    if gaps:
        raise IntegrityError(
            f"the ledger of {domain} has no entry {len(stored) + 1}, but has {gaps[0]}: one was deleted"
        )
    return verify(stored, domain=domain)


def verify(stored: Sequence[bytes], *, domain: str) -> tuple[LedgerEntry, ...]:
    """Check numbers, hashes and encoding of entries as stored, oldest first. Raises IntegrityError at a fault."""
    entries: list[LedgerEntry] = []
    previous_hash, previous_version = GENESIS_HASH, None
    for number, data in enumerate(stored, start=1):
        name = f"ledger entry {number} of {domain}"
        try:
            entry = LedgerEntry.model_validate_json(data)
        except ValidationError as error:
            raise IntegrityError(f"{name} is not readable: {error}") from error
        if canonical_json(entry) != data:
            raise IntegrityError(f"{name} is not in canonical form: somebody rewrote it")
        if entry.domain != domain or entry.sequence != number:
            raise IntegrityError(f"{name} says it is entry {entry.sequence} of {entry.domain}")
        if entry.previous_hash != previous_hash:
            raise IntegrityError(f"{name} follows {entry.previous_hash}, but entry {number - 1} has {previous_hash}")
        if entry.previous_version != previous_version:
            raise IntegrityError(f"{name} says version {entry.previous_version} was live; it was {previous_version}")
        entries.append(entry)
        previous_hash, previous_version = hashlib.sha256(data).hexdigest(), entry.version
    return tuple(entries)


def current(entries: Sequence[LedgerEntry]) -> LedgerEntry | None:
    """Return the entry that is live now, or None before the base is registered."""
    return entries[-1] if entries else None


def live_at(entries: Sequence[LedgerEntry], time: datetime) -> LedgerEntry | None:
    """Return the entry that was live at `time` (aware), or None when nothing was yet."""
    live = None
    for entry in entries:
        if datetime.fromisoformat(entry.time) <= time:
            live = entry
    return live


def entry_of_version(entries: Sequence[LedgerEntry], version: int) -> LedgerEntry | None:
    """Return the newest entry that made `version` live: it names the version's manifest."""
    return next((entry for entry in reversed(entries) if entry.version == version), None)


def previous_live(entries: Sequence[LedgerEntry]) -> LedgerEntry | None:
    """Return what a rollback without a version goes back to: the version that the live one was promoted over.

    After a rollback from 3 to 2 that is 1, not 3: rolling back twice goes two steps back.
    """
    if not entries:
        return None
    # The first time the live version came in is the promotion that it owes its place to.
    first = next(entry for entry in entries if entry.version == entries[-1].version)
    return None if first.previous_version is None else entry_of_version(entries, first.previous_version)
