"""Reading the streams into the projection: everything so far at the start, then everything as it comes.

Owns: the read positions. Does not know: what an event means (`projection`).
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from jupiter import keys
from jupiter.bus import Bus
from jupiter.controller.projection import CHANNELS, Projection
from jupiter.errors import Unavailable

__all__ = ["Following"]

log = logging.getLogger(__name__)

# Pause before a stream is read on after the server was away.
RECONNECT_S = 1.0


class Following:
    """Keeps one projection up to date. `changed` is set after every event."""

    def __init__(self, bus: Bus, state: Projection) -> None:
        self._bus, self._state = bus, state
        self._positions = dict.fromkeys(CHANNELS, 0)
        self.changed = asyncio.Event()

    async def catch_up(self, *channels: str) -> None:
        """Fold in every stored event, of all channels unless some are named."""
        for channel in channels or CHANNELS:
            await self._read(channel, follow=False)

    async def run(self, stop: asyncio.Event) -> None:
        """Follow every channel until `stop`; a server that is away is waited for."""
        tasks = [asyncio.create_task(self._follow(channel), name=f"follow-{channel}") for channel in CHANNELS]
        stopping = asyncio.create_task(stop.wait())
        try:
            done, _ = await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopping}:
                task.result()  # only an error ends a follower: let it end the service
        finally:
            for task in (*tasks, stopping):
                task.cancel()
            await asyncio.gather(*tasks, stopping, return_exceptions=True)
            self.changed.set()  # whoever waits for news sees the stop instead

    async def _follow(self, channel: str) -> None:
        while True:
            with suppress(Unavailable):
                await self._read(channel, follow=True)
            await asyncio.sleep(RECONNECT_S)

    async def _read(self, channel: str, *, follow: bool) -> None:
        # A status has the service and instance in its subject too.
        subject = keys.subject(channel, self._state.domain) + (".>" if channel == "status" else "")
        async for entry in self._bus.read(subject, after=self._positions[channel], follow=follow):
            self._state.apply(entry.event, entry.sequence)
            self._positions[channel] = entry.sequence
            self.changed.set()
