"""Follow every stream of a domain and wait for something to become true of what was seen.

Owns: the record of the events seen so far. Does not know: what they mean to the cycle.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from jupiter.bus import Bus, LogEntry
from jupiter.events import Event, event_types
from jupiter.keys import subject

__all__ = ["CycleWatch"]

E = TypeVar("E", bound=Event)

CANCEL_AGAIN_S = 0.5
CHANNELS = tuple(sorted({cls.channel for cls in event_types().values()} - {"status"}))


class CycleWatch:
    """Everything the streams of one domain have said, from their beginning, and the next thing they say."""

    def __init__(self, bus: Bus, domain: str) -> None:
        self._bus = bus
        self._domain = domain
        self._seen: list[LogEntry] = []
        self._changed = asyncio.Condition()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> CycleWatch:
        self._tasks = [asyncio.create_task(self._follow(channel)) for channel in CHANNELS]
        return self

    async def __aexit__(self, *_: object) -> None:
        # Until Python 3.12, `asyncio.wait_for` loses a cancel that comes together with its result: say it again.
        pending = set(self._tasks)
        while pending:
            for task in pending:
                task.cancel()
            pending = (await asyncio.wait(pending, timeout=CANCEL_AGAIN_S))[1]
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def all(self, kind: type[E]) -> list[E]:
        """Return the events of one type, oldest first."""
        return [event for _, event in self.stored(kind)]

    def stored(self, kind: type[E]) -> list[tuple[int, E]]:
        """Return the events of one type, oldest first, each with its sequence in its stream."""
        return [(entry.sequence, entry.event) for entry in self._seen if isinstance(entry.event, kind)]

    async def until(self, condition: Callable[[CycleWatch], bool], *, what: str, timeout_s: float) -> None:
        """Return when `condition` holds. Raises TimeoutError naming `what` after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s), self._changed:
                await self._changed.wait_for(lambda: self._failed() or condition(self))
        except TimeoutError:
            raise TimeoutError(f"waited {timeout_s:.0f} s for {what}, in vain") from None
        for task in self._tasks:
            if task.done() and not task.cancelled():
                task.result()

    def _failed(self) -> bool:
        return any(task.done() for task in self._tasks)

    async def _follow(self, channel: str) -> None:
        try:
            async for entry in self._bus.read(subject(channel, self._domain)):
                async with self._changed:
                    self._seen.append(entry)
                    self._changed.notify_all()
        finally:
            async with self._changed:
                self._changed.notify_all()
