"""Computing in a worker thread by turns, interruptible.

Owns: giving the compute lease to others between steps, and ending early when the service stops.
Does not know: what is computed.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import TypeVar

from jupiter.compute import ComputeLease, Turn

__all__ = ["Interrupted", "Turns", "compute"]

T = TypeVar("T")


class Interrupted(Exception):
    """The service stops: the work is given back and done again by whoever gets it next."""


class Turns:
    """Holds the compute lease inside the block, but for the pauses in `between`."""

    def __init__(self, lease: ComputeLease, *, purpose: str) -> None:
        self._lease = lease
        self._purpose = purpose
        self._interrupted = threading.Event()
        self._held = ExitStack()
        self._turn: Turn | None = None
        self.waited_s = 0.0
        """Time spent waiting for turns after the first."""

    def __enter__(self) -> Turns:
        self._take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()

    def between(self) -> None:
        """Let others compute if it is their turn. Raises Interrupted when the service stops."""
        if self._interrupted.is_set():
            raise Interrupted
        if self._turn is not None and self._turn.should_yield():
            paused = time.monotonic()
            self._held.close()
            self._take()
            self.waited_s += time.monotonic() - paused

    def interrupt(self) -> None:
        """End the computation at its next `between`."""
        self._interrupted.set()

    def _take(self) -> None:
        self._turn = self._held.enter_context(self._lease.turn_in_thread(self._purpose))
        if self._interrupted.is_set():
            self._held.close()
            raise Interrupted


async def compute(lease: ComputeLease, purpose: str, work: Callable[[Turns], T]) -> T:
    """Run `work` in a thread that holds the compute lease; a cancel interrupts it at its next `between`."""
    turns = Turns(lease, purpose=purpose)

    def in_thread() -> T:
        with turns:
            return work(turns)

    try:
        return await asyncio.to_thread(in_thread)
    finally:
        turns.interrupt()
