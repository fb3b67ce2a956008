"""What a trainer may offer to hear of flips.

Owns: the two protocols. Does not know: trainers; any object will do, with one hook, both or none.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol, runtime_checkable

__all__ = ["OnPromotion", "OnRollback"]


@runtime_checkable
class OnPromotion(Protocol):
    """Called after a promotion: by `SelfImprover.promote`, and while `watch` runs by whomever. May be a coroutine."""

    def on_promotion(self, version: int) -> Awaitable[None] | None:
        """`version` generates from now on."""
        ...


@runtime_checkable
class OnRollback(Protocol):
    """Called after a rollback: by `rollback_generator`, and while `watch` runs by whomever. May be a coroutine."""

    def on_rollback(self, version: int) -> Awaitable[None] | None:
        """`version`, an earlier one, generates again."""
        ...
