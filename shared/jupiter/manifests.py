"""The one commit rule: content first, then one manifest created if absent (DESIGN §4).

Owns: `commit` and its inverse `fetch`. Does not know: what a batch, shard or checkpoint holds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from jupiter import crashpoints, keys
from jupiter.blobs import Blobs
from jupiter.errors import IntegrityError, NotFound
from jupiter.records import BlobRef, Manifest, canonical_json

__all__ = ["Committed", "commit", "download_bytes", "fetch", "find", "read", "upload_bytes", "upload_file"]


@dataclass(frozen=True, kw_only=True)
class Committed:
    """A manifest as it stands in the store. `won` is False when another worker's manifest was there first."""

    manifest: Manifest
    key: str
    sha256: str
    won: bool


def upload_bytes(blobs: Blobs, *, prefix: str, name: str, data: bytes) -> BlobRef:
    """Store content under `prefix` at a key that its sha256 names; two workers never overwrite each other."""
    sha256 = hashlib.sha256(data).hexdigest()
    key = f"{prefix}/{sha256[:32]}-{name}"
    blobs.put(key, data)
    return BlobRef(name=name, key=key, size=len(data), sha256=sha256)


def download_bytes(blobs: Blobs, ref: BlobRef) -> bytes:
    """Return a small file of a manifest. Raises NotFound, and IntegrityError if the bytes are not those named."""
    data = blobs.get(ref.key)
    seen = hashlib.sha256(data).hexdigest()
    if seen != ref.sha256:
        raise IntegrityError(f"{ref.key} has sha256 {seen}, its manifest named {ref.sha256}")
    return data


def upload_file(blobs: Blobs, *, prefix: str, name: str, path: Path) -> BlobRef:
    """Like `upload_bytes`, streaming from a file that nobody writes to any more."""
    with path.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    key = f"{prefix}/{sha256[:32]}-{name.replace('/', '_')}"
    stored = blobs.put_file(key, path)
    if stored != sha256:
        raise IntegrityError(f"{path} changed while it was uploaded: {sha256} before, {stored} after")
    return BlobRef(name=name, key=key, size=path.stat().st_size, sha256=sha256)


def commit(
    blobs: Blobs,
    *,
    prefix: str,
    kind: str,
    domain: str,
    work_id: str,
    files: tuple[BlobRef, ...],
    details: Mapping[str, Any],
) -> Committed:
    """Create the manifest at `<prefix>/manifest.json` if absent; the loser of a race gets the winner's.

    Call only after every file in `files` is stored.
    """
    crashpoints.reached("blobs")
    manifest = Manifest.model_validate(
        {
            "kind": kind,
            "domain": domain,
            "work_id": work_id,
            "created_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "files": files,
            "details": dict(details),
        }
    )
    key = keys.manifest_key(prefix)
    data = canonical_json(manifest)
    won = blobs.create(key, data)
    crashpoints.reached("manifest")
    if not won:
        return read(blobs, key)
    return Committed(manifest=manifest, key=key, sha256=hashlib.sha256(data).hexdigest(), won=True)


def read(blobs: Blobs, key: str, *, sha256: str | None = None) -> Committed:
    """Return the manifest at `key`. Raises NotFound, and IntegrityError if it is not the one that was named."""
    data = blobs.get(key)
    seen = hashlib.sha256(data).hexdigest()
    if sha256 is not None and seen != sha256:
        raise IntegrityError(f"manifest {key} has sha256 {seen}, its event named {sha256}")
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError as error:
        raise IntegrityError(f"manifest {key} is not readable: {error}") from error
    return Committed(manifest=manifest, key=key, sha256=seen, won=False)


def find(blobs: Blobs, prefix: str) -> Committed | None:
    """Return the committed manifest of a unit of work, or None when the work is still to be done."""
    try:
        return read(blobs, keys.manifest_key(prefix))
    except NotFound:
        return None


def fetch(blobs: Blobs, manifest: Manifest, directory: Path, *, names: tuple[str, ...] | None = None) -> None:
    """Download the manifest's files (or only `names`) into `directory`, each checked and renamed into place."""
    for ref in manifest.files:
        if names is None or ref.name in names:
            target = directory / ref.name
            target.parent.mkdir(parents=True, exist_ok=True)
            blobs.get_file(ref.key, target, sha256=ref.sha256, size=ref.size)
