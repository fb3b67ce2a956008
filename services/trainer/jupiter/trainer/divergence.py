"""Notice that training has gone wrong, before the result is saved.

Owns: the rule. Does not know: what is done about it.

Reference is the loss of the run's first steps: a model that knows less of fresh text than the one it began as, by
`nats`, has diverged. The best loss so far would be no reference: repeated shards are learned far below fresh ones.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

from jupiter.errors import JupiterError

__all__ = ["Diverged", "LossGuard"]

WINDOW_STEPS = 20
"""Steps that are averaged, at the start and now: single steps of a thousand tokens scatter by half a nat."""


class Diverged(JupiterError):
    """Training must not go on from here; the text says why."""


class LossGuard:
    """Watches the loss of each step."""

    def __init__(self, *, nats: float) -> None:
        self._nats = nats
        self._first: list[float] = []
        self._recent: deque[float] = deque(maxlen=WINDOW_STEPS)

    def check(self, *, step: int, loss: float, gradient_norm: float) -> None:
        """Take note of a step. Raises Diverged."""
        if not math.isfinite(loss) or not math.isfinite(gradient_norm):
            raise Diverged(f"step {step} has loss {loss} and gradient norm {gradient_norm}: not finite numbers")
        if len(self._first) < WINDOW_STEPS:
            self._first.append(loss)
        self._recent.append(loss)
        began = sum(self._first) / len(self._first)
        now = sum(self._recent) / len(self._recent)
        if len(self._recent) == WINDOW_STEPS and now > began + self._nats:
            raise Diverged(
                f"the mean loss of the last {WINDOW_STEPS} steps is {now:.3f} at step {step}, {now - began:.3f} nats"
                f" above the run's first {WINDOW_STEPS}; trainer.divergence_nats allows {self._nats}"
            )

    def state(self) -> dict[str, Any]:
        return {"first": self._first, "recent": list(self._recent)}

    def restore(self, state: dict[str, Any]) -> None:
        self._first = list(state["first"])
        self._recent = deque(state["recent"], maxlen=WINDOW_STEPS)
