"""The history of the generator: a hash chain of objects `ledger/<domain>/<sequence>.json`, the one truth.

Owns: the entry, how its hash is taken, reading and verifying the chain, and the questions asked of it.
Does not know: when an entry is written (only the controller appends, by conditional create: that is the flip).

Two sorts of entries share the chain: flips, which make a version live, and openings of the sealed half of a benchmark,
which change nothing about what is live and are spent whatever comes of them. An entry is never edited; a rollback is a
new entry.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, ValidationError, model_validator

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
    "flips",
    "live_at",
    "opening_of",
    "openings",
    "previous_live",
    "read_ledger",
    "verify",
]

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Action = Literal["registered", "promoted", "rolled_back", "opened"]

GENESIS_HASH = "0" * 64


def _unset(value: object) -> bool:
    return value is None or value is False


class LedgerEntry(Record):
    """One flip (from now on `version` is the generator), or one opening (`version` is and stays the generator).

    Fields that came later are not serialised where they are unset, so that every older entry keeps its hash.
    """

    schema_version: Literal[1] = 1
    domain: str
    sequence: int = Field(ge=1)
    action: Action
    """`registered`: the base became version 1. `promoted`: forward. `rolled_back`: an earlier version again.
    `opened`: the sealed half of the benchmark was opened for `evaluation_id`; nothing else changed."""
    version: int = Field(ge=1)
    previous_version: int | None
    """What was live until now; None for the first entry."""
    checkpoint_id: Sha256 | None = None
    """The checkpoint that the version was made from; None for the base."""
    evaluation_id: Sha256 | None = None
    """The evaluation that justified a promotion, or that the sealed half was opened for."""
    manifest_key: str
    manifest_sha256: Sha256
    """The version's own manifest: which files it is made of."""
    evidence_sha256: Sha256 | None = None
    """sha256 of the verdict or evidence this flip rests on; None where there is none (registration, by hand)."""
    actor: str = Field(min_length=1, max_length=200)
    """`controller`, or who asked through the API."""
    reason: str = Field(min_length=1, max_length=2_000)
    time: str
    """RFC 3339, UTC."""
    idempotency_key: str | None = Field(default=None, max_length=200)
    """Of the request that asked for it: the same request never flips twice."""
    previous_hash: Sha256
    """sha256 of the entry before as stored; 64 zeros for the first."""
    benchmark_digest: Sha256 | None = Field(default=None, exclude_if=_unset)
    """Of an opening: whose sealed half was opened."""
    opening: int | None = Field(default=None, ge=1, exclude_if=_unset)
    """Of an opening: k, how many openings against this version it makes. Error is spent by it."""
    quarantined: bool = Field(default=False, exclude_if=_unset)
    """Of a rollback: the batches of the version that was left are withdrawn."""
    rewind: bool = Field(default=False, exclude_if=_unset)
    """Of a rollback with quarantine: the trainer goes back to the last checkpoint that had none of them."""

    @model_validator(mode="after")
    def _fits_its_action(self) -> LedgerEntry:
        of_opening = (self.evaluation_id, self.benchmark_digest, self.opening)
        if self.action == "opened" and None in of_opening:
            raise ValueError("an opening names its evaluation_id, benchmark_digest and opening")
        if self.action != "opened" and (self.benchmark_digest is not None or self.opening is not None):
            raise ValueError(f"benchmark_digest and opening belong to openings, not to {self.action}")
        if self.action != "rolled_back" and (self.quarantined or self.rewind):
            raise ValueError(f"quarantined and rewind belong to rollbacks, not to {self.action}")
        return self


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
        if entry.action == "opened":
            _verify_opening(entry, entries, name)
        entries.append(entry)
        previous_hash, previous_version = hashlib.sha256(data).hexdigest(), entry.version
    return tuple(entries)


def _verify_opening(entry: LedgerEntry, before: Sequence[LedgerEntry], name: str) -> None:
    """An opening flips nothing, and its number cannot be chosen: it follows from the openings before it."""
    live = current(before)
    if live is None or (entry.version, entry.manifest_sha256) != (live.version, live.manifest_sha256):
        raise IntegrityError(f"{name} opens a sealed half against version {entry.version}, which was not live")
    wanted = 1 + len(openings(before, version=entry.version))
    if entry.opening != wanted:
        raise IntegrityError(f"{name} is opening {wanted} against version {entry.version}; it says {entry.opening}")


def flips(entries: Sequence[LedgerEntry]) -> tuple[LedgerEntry, ...]:
    """Return the entries that made a version live, oldest first."""
    return tuple(entry for entry in entries if entry.action != "opened")


def openings(
    entries: Sequence[LedgerEntry], *, version: int | None = None, benchmark_digest: str | None = None
) -> tuple[LedgerEntry, ...]:
    """Return the openings, oldest first: all, those against a live `version`, those of one benchmark, or of both."""
    return tuple(
        entry
        for entry in entries
        if entry.action == "opened"
        and version in (None, entry.version)
        and benchmark_digest in (None, entry.benchmark_digest)
    )


def opening_of(entries: Sequence[LedgerEntry], evaluation_id: str) -> LedgerEntry | None:
    """Return the opening that was spent on an evaluation, or None: at most one is."""
    return next((entry for entry in openings(entries) if entry.evaluation_id == evaluation_id), None)


def current(entries: Sequence[LedgerEntry]) -> LedgerEntry | None:
    """Return the entry that is live now, or None before the base is registered."""
    return next((entry for entry in reversed(entries) if entry.action != "opened"), None)


def live_at(entries: Sequence[LedgerEntry], time: datetime) -> LedgerEntry | None:
    """Return the entry that was live at `time` (aware), or None when nothing was yet."""
    live = None
    for entry in flips(entries):
        if datetime.fromisoformat(entry.time) <= time:
            live = entry
    return live


def entry_of_version(entries: Sequence[LedgerEntry], version: int) -> LedgerEntry | None:
    """Return the newest entry that made `version` live: it names the version's manifest."""
    return next((entry for entry in reversed(flips(entries)) if entry.version == version), None)


def previous_live(entries: Sequence[LedgerEntry]) -> LedgerEntry | None:
    """Return what a rollback without a version goes back to: the version that the live one was promoted over.

    After a rollback from 3 to 2 that is 1, not 3: rolling back twice goes two steps back.
    """
    live = current(entries)
    if live is None:
        return None
    # The first time the live version came in is the promotion that it owes its place to.
    first = next(entry for entry in flips(entries) if entry.version == live.version)
    return None if first.previous_version is None else entry_of_version(entries, first.previous_version)
