"""Between the threads that ask and the event loop that makes: the engine's interface blocks, vLLM's does not.

Owns: the loop's thread, and the pace that an asking thread sets. Does not know: engines, prompts.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from jupiter.generator.engines import Progress

__all__ = ["LoopThread", "Pace"]

T = TypeVar("T")

LOOK_S = 0.2
"""How often a thread that waits for samples asks whether it shall go on waiting."""


class LoopThread:
    """An event loop in a thread of its own, for as long as the process lives."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="vllm-engine", daemon=True).start()

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what `work` returns; blocks."""
        return self.start(work).result()

    def soon(self, action: Any) -> None:
        self._loop.call_soon_threadsafe(action)


class Pace:
    """At most so many samples in hand that the asking thread has not seen finished.

    When that thread is made to wait (another process computes), no more are begun, and vLLM soon stands still.
    """

    def __init__(self, in_hand_max: int) -> None:
        self._places = asyncio.Semaphore(in_hand_max)
        self._finished: queue.SimpleQueue[int | None] = queue.SimpleQueue()

    @asynccontextmanager
    async def begun(self) -> AsyncIterator[list[int]]:
        """Wait for a place; the block appends how many tokens its sample has."""
        await self._places.acquire()
        tokens: list[int] = []
        yield tokens
        self._finished.put(sum(tokens))

    def follow(self, making: Future[Any], progress: Progress, loop: LoopThread) -> None:
        """Report every sample from this thread until all are made or one failed. Raises what `progress` raises."""
        making.add_done_callback(lambda _: self._finished.put(None))
        while True:
            try:
                tokens = self._finished.get(timeout=LOOK_S)
            except queue.Empty:
                progress(0, 0)
                continue
            if tokens is None:
                return
            progress(1, tokens)
            loop.soon(self._places.release)
