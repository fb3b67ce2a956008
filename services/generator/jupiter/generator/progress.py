"""How far a batch is: counted in the generating thread, published from the event loop.

Owns: the counts and the rate. Does not know: what is generated.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from jupiter.service import Runtime

__all__ = ["Counts", "published"]

INTERVAL_S = 1.0


class Counts:
    """Samples finished and tokens made of one request. One thread adds, another reads: plain numbers suffice."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.samples = 0
        self.tokens = 0
        self._began: float | None = None

    def begin(self) -> None:
        """Start the clock: waiting for the compute lease is not counted."""
        self._began = time.monotonic()

    def add(self, samples: int, tokens: int) -> None:
        self.samples += samples
        self.tokens += tokens

    def seconds(self) -> float:
        return 0.0 if self._began is None else time.monotonic() - self._began

    def rates_per_s(self) -> tuple[float | None, float | None]:
        """Return samples and tokens per second, None before there are any."""
        seconds = self.seconds()
        if not self.tokens or seconds <= 0:
            return None, None
        return self.samples / seconds, self.tokens / seconds


@asynccontextmanager
async def published(runtime: Runtime, counts: Counts, *, detail: str, version: int) -> AsyncIterator[None]:
    """Publish the counts every second while the block runs."""

    async def publish() -> None:
        while True:
            samples_per_s, tokens_per_s = counts.rates_per_s()
            await runtime.status(
                "generating" if tokens_per_s else "waiting",
                detail=detail if tokens_per_s else f"{detail} waits for its turn to compute",
                done=counts.samples,
                total=counts.total,
                unit="samples",
                rate_per_s=samples_per_s,
                tokens=counts.tokens,
                tokens_per_s=tokens_per_s,
                version=version,
            )
            await asyncio.sleep(INTERVAL_S)

    publishing = asyncio.create_task(publish())
    try:
        yield
    finally:
        publishing.cancel()
