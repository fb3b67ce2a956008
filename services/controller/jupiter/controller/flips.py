"""Writing the ledger: the one place where a generator version becomes live, or a sealed half is spent.

Owns: making the next entry and creating it if absent (the flip), version manifests, the registration of the base, the
record of an opening.
Does not know: why a version is promoted (`gate`, the API) nor who hears of it (`promotion` announces).

Synchronous and free of state: every function may be killed anywhere and called again.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from jupiter import crashpoints, keys, manifests
from jupiter.blobs import Blobs
from jupiter.errors import Conflict, NotFound, Rejected
from jupiter.ledger import (
    GENESIS_HASH,
    Action,
    LedgerEntry,
    current,
    entry_hash,
    entry_of_version,
    flips,
    opening_of,
    openings,
    previous_live,
    read_ledger,
)
from jupiter.manifests import Committed
from jupiter.records import Record, canonical_json

__all__ = [
    "Request",
    "already",
    "announcement_of",
    "expect_live",
    "flip_to_checkpoint",
    "flip_to_version",
    "open_sealed_half",
    "register_base",
    "verify_files",
]


REASON_CHARS_MAX = 2_000


class Request(Record):
    """Who wants a flip, why, and what they think is live."""

    actor: str
    reason: str
    action: Action
    expected_version: int | None = None
    """Refuse with Conflict when another version is live. None: whatever is live."""
    idempotency_key: str | None = None
    evaluation_id: str | None = None
    evidence_sha256: str | None = None
    quarantine: bool = False
    """Of a rollback: withdraw what the version that is left has made."""
    rewind: bool = False
    """Of a rollback with quarantine: have the trainer go back to its last checkpoint without any of it."""


def register_base(blobs: Blobs, domain: str, imported: Committed) -> LedgerEntry:
    """Make the imported base model version 1, once; later imports find it registered and change nothing."""
    entries = read_ledger(blobs, domain)
    if entries:
        return entries[0]
    committed = _commit_version(blobs, domain, version=1, source=imported, origin="base", checkpoint_id=None)
    request = Request(actor="controller", reason="the base model was imported", action="registered")
    return _append(blobs, domain, entries, request, version=1, manifest=committed, checkpoint_id=None)


def flip_to_checkpoint(
    blobs: Blobs, domain: str, request: Request, *, checkpoint_id: str, manifest_key: str, manifest_sha256: str
) -> LedgerEntry:
    """Make the checkpoint the next version and flip to it; called again, returns the entry it wrote the first time.

    Raises Conflict when another version is live than was expected, Rejected when the checkpoint is not whole.
    """
    entries = read_ledger(blobs, domain)
    done = already(entries, request, checkpoint_id=checkpoint_id)
    if done:
        return done
    expect_live(entries, request)
    checkpoint = _stored(blobs, checkpoint_id, manifest_key, manifest_sha256)
    verify_files(blobs, checkpoint)
    version, committed = _next_version(blobs, domain, entries, checkpoint, checkpoint_id)
    # A collector deletes the manifest, then asks what is in use: where it still stands, the version will be found.
    _stored(blobs, checkpoint_id, manifest_key, manifest_sha256)
    return _append(blobs, domain, entries, request, version=version, manifest=committed, checkpoint_id=checkpoint_id)


def flip_to_version(blobs: Blobs, domain: str, request: Request, *, version: int | None) -> LedgerEntry:
    """Flip to a version that was live before; None means the one that the live one was promoted over.

    Raises NotFound for a version the ledger does not know, Conflict when it is live already or another was expected.
    """
    entries = read_ledger(blobs, domain)
    done = already(entries, request, version=version)
    if done:
        return done
    live = expect_live(entries, request)
    target = previous_live(entries) if version is None else entry_of_version(entries, version)
    if target is None:
        known = sorted({entry.version for entry in flips(entries)})
        what = "there is no version before the first" if version is None else f"there is no version {version}"
        raise NotFound(f"{what}; the ledger of {domain} knows {known}")
    if target.version == live.version:
        raise Conflict(f"version {target.version} is live already")
    committed = manifests.read(blobs, target.manifest_key, sha256=target.manifest_sha256)
    verify_files(blobs, committed)
    return _append(
        blobs,
        domain,
        entries,
        request,
        version=target.version,
        manifest=committed,
        checkpoint_id=target.checkpoint_id,
    )


def open_sealed_half(
    blobs: Blobs, domain: str, *, evaluation_id: str, benchmark_digest: str, actor: str, reason: str, seen: int
) -> LedgerEntry:
    """Spend one opening of the benchmark's sealed half on an evaluation, at most once; nothing is flipped.

    `seen`: how many entries the ledger had when the gate asked for it. Raises Conflict when there are more by now: what
    was decided rests on them, so the gate must be asked anew.
    """
    entries = read_ledger(blobs, domain)
    done = opening_of(entries, evaluation_id)
    if done:
        return done
    live = current(entries)
    if live is None or len(entries) != seen:
        raise Conflict(f"the ledger has {len(entries)} entries, the gate saw {seen}: look again and decide anew")
    return _create(
        blobs,
        LedgerEntry(
            domain=domain,
            **_place(entries),
            action="opened",
            version=live.version,
            previous_version=live.version,
            checkpoint_id=live.checkpoint_id,
            evaluation_id=evaluation_id,
            manifest_key=live.manifest_key,
            manifest_sha256=live.manifest_sha256,
            actor=actor,
            reason=reason[:REASON_CHARS_MAX],
            benchmark_digest=benchmark_digest,
            opening=1 + len(openings(entries, version=live.version)),
        ),
    )


def verify_files(blobs: Blobs, committed: Committed) -> None:
    """Refuse a checkpoint or version that lacks a file. Raises Rejected.

    Presence only: what the bytes are is attested by every generator before it serves them, and a version that fails
    there is rolled back (DESIGN §5), so hashing gigabytes here would decide nothing.
    """
    missing = [ref.name for ref in committed.manifest.files if blobs.stat(ref.key) is None]
    if missing or not committed.manifest.files:
        raise Rejected(f"{committed.key} names files that are not stored: {missing or 'it names none'}")


def _stored(blobs: Blobs, checkpoint_id: str, manifest_key: str, manifest_sha256: str) -> Committed:
    try:
        return manifests.read(blobs, manifest_key, sha256=manifest_sha256)
    except NotFound as error:
        raise Rejected(f"checkpoint {checkpoint_id[:12]} is no longer stored: {error}") from error


def already(
    entries: Sequence[LedgerEntry], request: Request, *, version: int | None = None, checkpoint_id: str | None = None
) -> LedgerEntry | None:
    """Return the entry that this very request wrote before, if any; a target that is None may be whatever it was.

    Raises Conflict where its key has led to another flip.
    """
    for entry in flips(entries):
        if request.idempotency_key is not None and entry.idempotency_key == request.idempotency_key:
            same = version in (None, entry.version) and checkpoint_id in (None, entry.checkpoint_id)
            if entry.action != request.action or not same:
                key, number = request.idempotency_key, entry.sequence
                raise Conflict(f"Idempotency-Key {key} was used for another flip: ledger entry {number}")
            return entry
        automatic = request.idempotency_key is None and request.action == "promoted"
        if automatic and request.evaluation_id is not None and entry.evaluation_id == request.evaluation_id:
            return entry
    return None


def expect_live(entries: Sequence[LedgerEntry], request: Request) -> LedgerEntry:
    """Return the live entry. Raises Conflict where none is, or another one than the request expects."""
    live = current(entries)
    if live is None:
        raise Conflict("no generator is registered yet: wait until the base model is imported")
    if request.expected_version is not None and request.expected_version != live.version:
        raise Conflict(f"version {live.version} is live, not {request.expected_version}: look again and decide anew")
    return live


def _next_version(
    blobs: Blobs, domain: str, entries: Sequence[LedgerEntry], checkpoint: Committed, checkpoint_id: str
) -> tuple[int, Committed]:
    """Return the version of this checkpoint: its old number if it has one, else one above any ever used.

    A number whose manifest was created for another checkpoint (a promotion that lost its race) stays unused.
    """
    for entry in flips(entries):
        if entry.checkpoint_id == checkpoint_id:
            return entry.version, manifests.read(blobs, entry.manifest_key, sha256=entry.manifest_sha256)
    version = 1 + max(entry.version for entry in entries)
    while True:
        committed = _commit_version(
            blobs, domain, version=version, source=checkpoint, origin="checkpoint", checkpoint_id=checkpoint_id
        )
        if committed.manifest.details.get("checkpoint_id") == checkpoint_id:
            return version, committed
        version += 1


def _commit_version(
    blobs: Blobs, domain: str, *, version: int, source: Committed, origin: str, checkpoint_id: str | None
) -> Committed:
    """Create the version's manifest: the same files, under a version's name. The source has the HF layout already."""
    # Training state is not part of a generator; the golden outputs are, for they are what a load is attested by.
    files = tuple(ref for ref in source.manifest.files if not ref.name.startswith("training_state"))
    return manifests.commit(
        blobs,
        prefix=keys.generator_prefix(domain, version),
        kind="generator",
        domain=domain,
        work_id=f"{domain}-v{version}",
        files=files,
        details={
            "version": version,
            "origin": origin,
            "checkpoint_id": checkpoint_id,
            "checkpoint_manifest_key": source.key if checkpoint_id else None,
            "source_manifest_key": source.key,
            "source_manifest_sha256": source.sha256,
            "name": source.manifest.details.get("name"),
            "step": source.manifest.details.get("step"),
        },
    )


def _append(
    blobs: Blobs,
    domain: str,
    entries: Sequence[LedgerEntry],
    request: Request,
    *,
    version: int,
    manifest: Committed,
    checkpoint_id: str | None,
) -> LedgerEntry:
    """Create the entry of a flip. Raises Conflict when somebody else wrote first."""
    live = current(entries)
    return _create(
        blobs,
        LedgerEntry(
            domain=domain,
            **_place(entries),
            action=request.action,
            version=version,
            previous_version=live.version if live else None,
            checkpoint_id=checkpoint_id,
            evaluation_id=request.evaluation_id,
            manifest_key=manifest.key,
            manifest_sha256=manifest.sha256,
            evidence_sha256=request.evidence_sha256,
            actor=request.actor,
            reason=request.reason[:REASON_CHARS_MAX],
            idempotency_key=request.idempotency_key,
            quarantined=request.quarantine,
            rewind=request.rewind,
        ),
    )


def _place(entries: Sequence[LedgerEntry]) -> dict[str, Any]:
    """Return the fields that make an entry the next one of the chain."""
    last = entries[-1] if entries else None
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return {
        "sequence": len(entries) + 1,
        # Another controller's clock may run ahead; the history never goes backwards.
        "time": max(now, last.time) if last else now,
        "previous_hash": entry_hash(last) if last else GENESIS_HASH,
    }


def _create(blobs: Blobs, entry: LedgerEntry) -> LedgerEntry:
    """Create the entry. Raises Conflict when somebody else wrote first; our own earlier try counts as ours."""
    if blobs.create(keys.ledger_key(entry.domain, entry.sequence), canonical_json(entry)):
        crashpoints.reached("manifest")
        return entry
    winner = read_ledger(blobs, entry.domain)[entry.sequence - 1]
    if winner.model_copy(update={"time": entry.time}) == entry:
        return winner
    did = "opened a sealed half" if winner.action == "opened" else f"flipped to version {winner.version}"
    raise Conflict(f"{winner.actor} {did} first ({winner.reason})")


def announcement_of(entry: LedgerEntry) -> dict[str, object]:
    """Return the fields that the events of a flip share."""
    return {
        "domain": entry.domain,
        "version": entry.version,
        "previous_version": entry.previous_version,
        "ledger_sequence": entry.sequence,
        "manifest_key": entry.manifest_key,
        "manifest_sha256": entry.manifest_sha256,
        "reason": entry.reason,
    }
