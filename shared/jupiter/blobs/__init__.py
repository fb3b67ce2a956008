"""The object store as the services see it.

Owns: the contract that both stores keep (`s3.S3Blobs` and `memory.MemoryBlobs`, one contract test).
Does not know: what lies under a key (`keys`, `records`), nor the commit rule (`manifests`).

All methods are synchronous and thread-safe; services call them through `asyncio.to_thread`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

__all__ = ["Blobs", "ObjectInfo"]


@dataclass(frozen=True, kw_only=True)
class ObjectInfo:
    """One stored object."""

    key: str
    size: int


class Blobs(Protocol):
    """Immutable objects by key, and one conditional create."""

    def start(self) -> None:
        """Create the bucket if absent and refuse a server without conditional create. Raises Unavailable."""
        ...

    def put(self, key: str, data: bytes) -> None:
        """Store small bytes with their checksum."""
        ...

    def put_file(self, key: str, path: Path) -> str:
        """Stream a file up and return its sha256 (hex)."""
        ...

    def create(self, key: str, data: bytes) -> bool:
        """Store `data` if and only if the key is absent (`If-None-Match: *`); False when it already exists."""
        ...

    def get(self, key: str) -> bytes:
        """Return the bytes. Raises NotFound, Unavailable."""
        ...

    def get_file(self, key: str, path: Path, *, sha256: str, size: int) -> None:
        """Stream to a temporary name, check size and digest, rename. Raises NotFound, IntegrityError."""
        ...

    def stat(self, key: str) -> ObjectInfo | None: ...

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects under `prefix` in key order."""
        ...

    def delete(self, key: str) -> None:
        """Remove the object; absent is fine."""
        ...

    def ready(self) -> None:
        """Do a real PUT of a canary. Raises Unavailable with the reason."""
        ...
