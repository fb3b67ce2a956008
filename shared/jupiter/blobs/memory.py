"""The object store in this process: the twin of `s3`, for tests.

Owns: the same promises (conditional create, digest checks, atomic files) without a server.
Does not know: persistence; it forgets everything with the process.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

from jupiter.blobs import ObjectInfo
from jupiter.blobs.files import FileWriter, digest_of_file
from jupiter.errors import NotFound, Unavailable

__all__ = ["MemoryBlobs"]


class MemoryBlobs:
    """See `Blobs`. One instance is the server and every client of it."""

    def __init__(self) -> None:
        self.available = True
        """Tests set it to False: every call then raises Unavailable."""
        self._objects: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def start(self) -> None:
        self.ready()

    def put(self, key: str, data: bytes) -> None:
        self.ready()
        with self._lock:
            self._objects[key] = bytes(data)

    def put_file(self, key: str, path: Path) -> str:
        self.put(key, path.read_bytes())
        return digest_of_file(path)

    def create(self, key: str, data: bytes) -> bool:
        self.ready()
        with self._lock:
            if key in self._objects:
                return False
            self._objects[key] = bytes(data)
            return True

    def get(self, key: str) -> bytes:
        self.ready()
        with self._lock:
            if key not in self._objects:
                raise NotFound(f"there is no object {key}")
            return self._objects[key]

    def get_file(self, key: str, path: Path, *, sha256: str, size: int) -> None:
        with FileWriter(key=key, path=path, sha256=sha256, size=size) as target:
            target.write(self.get(key))

    def stat(self, key: str) -> ObjectInfo | None:
        self.ready()
        with self._lock:
            data = self._objects.get(key)
        return None if data is None else ObjectInfo(key=key, size=len(data))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        self.ready()
        with self._lock:
            found = sorted((key, len(data)) for key, data in self._objects.items() if key.startswith(prefix))
        return iter([ObjectInfo(key=key, size=size) for key, size in found])

    def delete(self, key: str) -> None:
        self.ready()
        with self._lock:
            self._objects.pop(key, None)

    def ready(self) -> None:
        if not self.available:
            raise Unavailable("the in-memory store was made unavailable by the test")
