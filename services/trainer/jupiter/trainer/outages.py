"""Servers that are away: what is asked of them is asked again until they answer.

Owns: the pause, and saying what is waited for. Does not know: what is asked.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from jupiter.errors import Unavailable

__all__ = ["outlast"]

log = logging.getLogger(__name__)

RETRY_S = 2.0
"""Pause before a server that did not answer is asked again."""

T = TypeVar("T")


async def outlast(work: Callable[[], Awaitable[T]], *, waiting: str) -> T:
    """Return what `work` brings, which may be done twice; repeat it for ever while a server is away."""
    while True:
        try:
            return await work()
        except Unavailable as error:
            log.warning("waiting %s: %s", waiting, error)
            await asyncio.sleep(RETRY_S)
