"""The compute lease: on one machine, one heavy service computes at a time, in bounded turns.

Torch processes that spin on the same two cores ran 4–12 times slower than one alone (DESIGN §11). So generating,
training and evaluating take turns:

    async with lease.turn("training") as turn:
        while work:
            step()
            if turn.should_yield():
                break

Work that runs in a thread takes as many turns as it needs: `compute(lease, purpose, work)` calls `work(turns)`, and the
work calls `turns.between()` between its steps.

Owns: who may compute now, in which order the others follow, and ending work early. Does not know: what is computed.

It is made of files that processes lock (`flock`), so the kernel gives a dead holder's or waiter's place back:

    <data_dir>/compute/slot-0.lock                 locked by the holder
    <data_dir>/compute/ticket-<time>-<what>-<id>   locked by one waiter; the oldest that is still locked is next

A waiter asks every `POLL_S` and never blocks the event loop. A holder that wants another turn queues behind those who
wait already. A child made by `os.fork` without exec would keep its parent's lock alive: start children by exec.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from jupiter.config import ClusterConfig

__all__ = ["ComputeLease", "Interrupted", "Turn", "Turns", "compute"]

T = TypeVar("T")

POLL_S = 0.02
# Others are looked for at most this often, so that `should_yield` may stand in the innermost loop.
LOOK_S = 0.25
# How many times longer a turn may last for a purpose. A verdict decides what the others should compute next (which
# version generates, whether training goes on from better data), so it is not shared evenly with them.
TURN_WEIGHTS = {"evaluating": 8.0}


class Turn:
    """A held turn. `should_yield` may be called from any thread."""

    def __init__(self, directory: Path | None, *, turn_s_max: float) -> None:
        self._directory = directory
        self._turn_s_max = turn_s_max
        self._began = time.monotonic()
        self._looked = -LOOK_S
        self._awaited = False

    def should_yield(self) -> bool:
        """Say whether the turn has lasted `turn_s_max` and somebody waits; without others, computing goes on."""
        now = time.monotonic()
        if self._directory is None or now - self._began < self._turn_s_max:
            return False
        if now - self._looked >= LOOK_S:
            self._looked = now
            self._awaited = next(_waiting(self._directory), None) is not None
        return self._awaited


class ComputeLease:
    """`slots` turns at a time among all processes that name the same directory; 0 slots: everybody, always."""

    def __init__(self, directory: Path, *, slots: int, turn_s_max: float) -> None:
        self._directory = directory
        self._slots = slots
        self._turn_s_max = turn_s_max
        if slots:
            directory.mkdir(parents=True, exist_ok=True)

    @classmethod
    def of(cls, config: ClusterConfig) -> ComputeLease:
        """Return the lease that every process of this deployment's `data_dir` shares."""
        local = config.local
        return cls(config.data_dir / "compute", slots=local.compute_slots, turn_s_max=local.turn_s_max)

    @asynccontextmanager
    async def turn(self, purpose: str) -> AsyncIterator[Turn]:
        """Wait for a slot without blocking the event loop, hold it inside the block, let the next one in after."""
        with self._waiter(purpose) as waiter:
            while not waiter.try_take():  # noqa: ASYNC110 - what frees a slot is another process
                await asyncio.sleep(POLL_S)
            yield self._begin(purpose)

    @contextmanager
    def turn_in_thread(self, purpose: str) -> Iterator[Turn]:
        """Like `turn`, for code that runs in a worker thread: it blocks that thread."""
        with self._waiter(purpose) as waiter:
            while not waiter.try_take():
                time.sleep(POLL_S)
            yield self._begin(purpose)

    def _begin(self, purpose: str) -> Turn:
        turn_s_max = self._turn_s_max * TURN_WEIGHTS.get(purpose, 1.0)
        return Turn(self._directory if self._slots else None, turn_s_max=turn_s_max)

    @contextmanager
    def _waiter(self, purpose: str) -> Iterator[_Waiter]:
        waiter = _Waiter(self._directory, slots=self._slots, purpose=purpose)
        try:
            yield waiter
        finally:
            waiter.leave()


class Interrupted(Exception):
    """The service stops: the work is given back and done again by whoever gets it next."""


class Turns:
    """Holds the lease inside the block, in a worker thread, but for the pauses in `between`."""

    def __init__(self, lease: ComputeLease, *, purpose: str, interrupted: threading.Event | None = None) -> None:
        self._lease = lease
        self._purpose = purpose
        self._interrupted = threading.Event() if interrupted is None else interrupted
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
        """End the work at its next `between`."""
        self._interrupted.set()

    def _take(self) -> None:
        self._turn = self._held.enter_context(self._lease.turn_in_thread(self._purpose))
        if self._interrupted.is_set():
            self._held.close()
            raise Interrupted


async def compute(lease: ComputeLease, purpose: str, work: Callable[[Turns], T]) -> T:
    """Run `work` in a thread that holds the lease; a cancel interrupts it at its next `between`."""
    turns = Turns(lease, purpose=purpose)

    def in_thread() -> T:
        with turns:
            return work(turns)

    try:
        return await asyncio.to_thread(in_thread)
    finally:
        turns.interrupt()


class _Waiter:
    """One place in the queue, then one slot."""

    def __init__(self, directory: Path, *, slots: int, purpose: str) -> None:
        self._slot_paths = [directory / f"slot-{index}.lock" for index in range(slots)]
        self._slot: int | None = None
        self._ticket: int | None = None
        self._directory = directory
        if slots:
            # Locked before it becomes visible: whoever sees an unlocked ticket may take its holder for dead.
            hidden = directory / f".new-{uuid.uuid4().hex}"
            self._ticket = os.open(hidden, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
            fcntl.flock(self._ticket, fcntl.LOCK_EX)
            self._path = directory / f"ticket-{time.monotonic_ns():020d}-{purpose}-{hidden.name.removeprefix('.new-')}"
            hidden.rename(self._path)

    def try_take(self) -> bool:
        """Take a free slot if this is the oldest waiter alive; True once a slot is held (or none is needed)."""
        if not self._slot_paths:
            return True
        if next(_waiting(self._directory, before=self._path), None) is not None:
            return False
        for path in self._slot_paths:
            slot = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
            if _try_lock(slot, fcntl.LOCK_EX):
                self._slot = slot
                self._tear_ticket()
                return True
            os.close(slot)
        return False

    def leave(self) -> None:
        """Give back whatever is held: the place in the queue, or the slot."""
        self._tear_ticket()
        if self._slot is not None:
            os.close(self._slot)
            self._slot = None

    def _tear_ticket(self) -> None:
        if self._ticket is not None:
            self._path.unlink(missing_ok=True)
            os.close(self._ticket)
            self._ticket = None


def _waiting(directory: Path, *, before: Path | None = None) -> Iterator[Path]:
    """Yield the tickets of waiters that are alive, oldest first, and remove those of the dead."""
    for path in sorted(directory.glob("ticket-*")):
        if before is not None and path >= before:
            return
        with suppress(FileNotFoundError):
            probe = os.open(path, os.O_RDONLY)
            try:
                if _try_lock(probe, fcntl.LOCK_SH):
                    path.unlink(missing_ok=True)
                else:
                    yield path
            finally:
                os.close(probe)


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
