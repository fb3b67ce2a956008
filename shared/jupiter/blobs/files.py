"""A file that appears whole and verified, or not at all.

Owns: temporary name, size and digest check, rename (DESIGN §4). Does not know: where the bytes come from.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path
from types import TracebackType
from typing import Self

from jupiter.errors import IntegrityError

__all__ = ["FileWriter", "digest_of_file"]


def digest_of_file(path: Path) -> str:
    """Return the sha256 (hex) of a file, streaming."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class FileWriter:
    """Writes beside `path`; on a clean exit with the right size and digest it becomes `path`, else it vanishes."""

    def __init__(self, *, key: str, path: Path, sha256: str, size: int) -> None:
        self._key, self._path, self._sha256, self._size = key, path, sha256, size
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
        self._digest = hashlib.sha256()
        self._written = 0

    def __enter__(self) -> Self:
        self._stream = self._temporary.open("wb")
        return self

    def write(self, data: bytes) -> None:
        """Append. Raises IntegrityError as soon as there is more than was promised, so no disk is filled."""
        self._written += len(data)
        if self._written > self._size:
            raise IntegrityError(f"{self._key} is larger than the {self._size} bytes that its manifest names")
        self._digest.update(data)
        self._stream.write(data)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        try:
            self._stream.flush()
            os.fsync(self._stream.fileno())
            self._stream.close()
            if error is None:
                self._check()
                self._temporary.replace(self._path)
        finally:
            self._stream.close()
            self._temporary.unlink(missing_ok=True)

    def _check(self) -> None:
        seen = self._digest.hexdigest()
        if (self._written, seen) != (self._size, self._sha256):
            raise IntegrityError(
                f"{self._key} has {self._written} bytes with sha256 {seen}; "
                f"its manifest names {self._size} bytes with sha256 {self._sha256}"
            )
