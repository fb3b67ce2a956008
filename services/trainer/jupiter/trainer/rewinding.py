"""Being sent back: what `RewindRequested` asks of this trainer.

Owns: hearing the requests that are meant for this run. Does not know: how a run is taken up (`resuming`).

A request is carried out by training on under another run name (`jupiter.withdrawals.rewound_run`), which follows from
the request alone: a trainer that was killed in between starts, hears of the same request and ends at the same place.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from jupiter import keys, withdrawals
from jupiter.bus import Bus
from jupiter.errors import Unavailable
from jupiter.events import RewindRequested

__all__ = ["Rewinds"]

RECONNECT_S = 2.0
"""Pause before the log is read on after the server was away."""


class Rewinds:
    """The requests to one run, in stream order. `open` comes first, then `follow` in the background."""

    def __init__(self, bus: Bus, *, domain: str, run: str) -> None:
        self._bus, self._domain, self._run = bus, domain, withdrawals.base_run(run)
        self._sequence = 0
        self._carried_out = 0
        self.requests: list[RewindRequested] = []
        self.news = asyncio.Event()
        """Set while `due`."""

    @property
    def due(self) -> bool:
        """Whether there is a request that nothing was done about yet."""
        return len(self.requests) > self._carried_out

    def carried_out(self) -> None:
        """Note that the newest request was looked at."""
        self._carried_out = len(self.requests)
        self.news.clear()

    async def open(self) -> None:
        """Read all requests so far. Raises Unavailable."""
        found = await withdrawals.read(self._bus, self._domain)
        self._sequence = found.withdrawn.sequence
        for request in found.rewinds:
            self._take(request)

    async def follow(self) -> None:
        """Hear of requests as they come, until cancelled."""
        subject = keys.subject(withdrawals.CHANNEL, self._domain)
        while True:
            with suppress(Unavailable):
                async for entry in self._bus.read(subject, after=self._sequence):
                    self._sequence = entry.sequence
                    if isinstance(entry.event, RewindRequested):
                        self._take(entry.event)
            await asyncio.sleep(RECONNECT_S)

    def _take(self, request: RewindRequested) -> None:
        known = {one.ledger_sequence for one in self.requests}
        if withdrawals.base_run(request.run) == self._run and request.ledger_sequence not in known:
            self.requests.append(request)
            self.news.set()
