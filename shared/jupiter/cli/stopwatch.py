"""How fast a stage counts that does not say so itself: timed from one status to the next.

Owns: the rate and the time left of such a stage, as measured here. Does not know: what is counted, nor how it is shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Stopwatch"]

TIMED_S_MIN = 1.0
"""A rate over less than that says more about when the status was read than about the work."""


@dataclass(frozen=True)
class _Lap:
    """When one piece of work was first seen, and how far it was then."""

    state: str
    total: float
    began_s: float
    done: float
    newest: float


class Stopwatch:
    """Fills in `rate_per_s` and `eta_s` where a stage counts towards a total without them."""

    def __init__(self) -> None:
        self._laps: dict[str, _Lap] = {}

    def timed(self, status: Mapping[str, Any], *, now_s: float) -> dict[str, Any]:
        """Return the status with what can be said of each stage by now."""
        return {**status, "stages": tuple(self._timed(stage, now_s) for stage in status["stages"])}

    def _timed(self, stage: Mapping[str, Any], now_s: float) -> dict[str, Any]:
        done, total = stage["done"], stage["total"]
        if done is None or total is None or stage["rate_per_s"]:
            self._laps.pop(stage["name"], None)
            return dict(stage)
        lap = self._laps.get(stage["name"])
        if lap is None or (lap.state, lap.total) != (stage["state"], total) or done < lap.newest:
            lap = _Lap(stage["state"], total, now_s, done, done)
        self._laps[stage["name"]] = _Lap(lap.state, lap.total, lap.began_s, lap.done, done)
        seconds = now_s - lap.began_s
        if done <= lap.done or done >= total or seconds < TIMED_S_MIN:
            return dict(stage)
        rate_per_s = (done - lap.done) / seconds
        return {**stage, "rate_per_s": rate_per_s, "eta_s": (total - done) / rate_per_s}
