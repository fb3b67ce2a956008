"""Which version serves, and which work still runs on the one before.

Owns: the switch and the counting of work in hand. Does not know: how a version is fetched, loaded or attested.
It belongs to the event loop: nothing here blocks or is called from a thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Served", "Serving"]


@dataclass(eq=False, kw_only=True)
class Served:
    """One attested version in memory."""

    version: int
    manifest_sha256: str
    handle: Any
    _in_use: int = 0


@dataclass(kw_only=True)
class Serving:
    """The current version, at most one before it for an instant rollback, and those that work still holds."""

    keep_previous: bool = True
    current: Served | None = None
    previous: Served | None = None
    _retired: list[Served] = field(default_factory=list)

    def find(self, version: int, manifest_sha256: str) -> Served | None:
        """Return the version if it is in memory and ready to serve; the same number of other content is another."""
        for served in (self.current, self.previous):
            if served is not None and (served.version, served.manifest_sha256) == (version, manifest_sha256):
                return served
        return None

    def versions(self) -> set[int]:
        """Return the versions whose files are still needed: current, previous, and those that work still holds."""
        return {served.version for served in (self.current, self.previous, *self._retired) if served is not None}

    def switch(self, served: Served) -> list[Served]:
        """Let `served` take all work that begins from now on; return the versions to release at once.

        Work in hand goes on with the version it began with, which is released when that ends.
        """
        if served is self.current:
            return []
        former = [each for each in (self.current, self.previous) if each is not None and each is not served]
        self.previous = former.pop(0) if former and self.keep_previous else None
        self.current = served
        self._retired += former
        return self._released()

    def withdraw(self) -> None:
        """Let the current version take no more work; it is released with the next switch, when another is in memory."""
        if self.current is not None:
            self._retired.append(self.current)
            self.current = None

    def forget_previous(self) -> list[Served]:
        """Keep nothing for a rollback; return the versions to release at once."""
        if self.previous is not None:
            self._retired.append(self.previous)
            self.previous = None
        return self._released()

    @contextmanager
    def hold(self, served: Served) -> Iterator[list[Served]]:
        """Keep `served` in memory during the block; the list is filled at its end with versions to release."""
        to_release: list[Served] = []
        served._in_use += 1
        try:
            yield to_release
        finally:
            served._in_use -= 1
            to_release += self._released()

    def _released(self) -> list[Served]:
        done = [served for served in self._retired if served._in_use == 0]
        self._retired = [served for served in self._retired if served._in_use > 0]
        return done
