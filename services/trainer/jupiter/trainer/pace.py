"""How fast training goes.

Owns: the two rates. Does not know: who reads them.
"""

from __future__ import annotations

import time
from collections import deque

__all__ = ["Pace"]

WINDOW_STEPS = 20


class Pace:
    """Rates over the last steps."""

    def __init__(self) -> None:
        self._ended: deque[float] = deque(maxlen=WINDOW_STEPS)
        self._work: deque[tuple[int, float]] = deque(maxlen=WINDOW_STEPS)

    def stepped(self, *, tokens: int, seconds: float) -> None:
        """Note a step that just ended."""
        self._ended.append(time.monotonic())
        self._work.append((tokens, seconds))

    @property
    def tokens_per_s(self) -> float | None:
        """While computing, waits excluded."""
        seconds = sum(seconds for _, seconds in self._work)
        return round(sum(tokens for tokens, _ in self._work) / seconds, 1) if seconds else None

    @property
    def steps_per_s(self) -> float | None:
        """By the clock, waits included: what an estimate of the arrival needs."""
        if len(self._ended) < 2 or self._ended[-1] == self._ended[0]:
            return None
        return (len(self._ended) - 1) / (self._ended[-1] - self._ended[0])
