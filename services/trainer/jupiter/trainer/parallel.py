"""The seam for many processes: what the trainer asks of them, and the answer when there is one.

Owns: `World` and `OneProcess`. Does not know: FSDP2. A world of many (`torchrun`) shards the model in `wrap`, takes
its share of a step's rows in `share`, and adds up over ranks in `total`; nothing else in the trainer has to change but
how the state is written (torch's distributed checkpoint).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

__all__ = ["OneProcess", "World"]

T = TypeVar("T")


class World(Protocol):
    """The processes that train one model together."""

    def wrap(self, model: Any) -> Any:
        """Return the model, spread over the processes."""
        ...

    def share(self, rows: Sequence[T]) -> Sequence[T]:
        """Return the rows that this process computes."""
        ...

    def total(self, value: float) -> float:
        """Return the sum of `value` over all processes."""
        ...


class OneProcess:
    """No others."""

    def wrap(self, model: Any) -> Any:
        return model

    def share(self, rows: Sequence[T]) -> Sequence[T]:
        return rows

    def total(self, value: float) -> float:
        return value
