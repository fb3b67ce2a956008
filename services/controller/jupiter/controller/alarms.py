"""The diversity breaker at work: what it finds becomes an event, once.

Owns: asking the breaker about every new shard, and publishing what it says. Does not know: the bounds (`breaker`), nor
what an open alarm holds back (`gate`, `promotion`; the curator raises the real ratio by itself).
"""

from __future__ import annotations

import asyncio
import logging

from jupiter import crashpoints
from jupiter.controller import breaker
from jupiter.controller.deps import Deps
from jupiter.controller.projection import Alarm
from jupiter.events import DiversityAlarmRaised

__all__ = ["Alarms"]

log = logging.getLogger(__name__)


class Alarms:
    """One look at a time; call `advance` whenever something may have changed."""

    def __init__(self, deps: Deps) -> None:
        self._deps, self._settings = deps, deps.config.diversity
        self._looked: tuple[int, int] | None = None
        """(shards, alarms) when the breaker had nothing to say: it says the same of the same."""

    async def advance(self) -> None:
        """Raise or clear the alarm as often as the shards since the last look ask for it."""
        deps, state = self._deps, self._deps.state
        if await self._due() is not None:
            # Another controller may have said it meanwhile: look at what the stream has before saying more.
            await deps.following.catch_up(DiversityAlarmRaised.channel)
        while (event := await self._due()) is not None:
            await deps.bus.publish(event)
            crashpoints.reached("event")
            state.apply(event)
            _log(event)
        if self._looked is None or self._looked[0] != len(state.shards):
            deps.diversity = await asyncio.to_thread(breaker.standing, tuple(state.shards.values()), self._settings)
            for figure in deps.diversity:
                deps.metrics.diversity_excess.labels(figure.name).set(figure.excess / figure.bound)
        self._looked = len(state.shards), len(state.alarms)
        deps.metrics.diversity_alarm.set(state.open_alarm() is not None)

    async def _due(self) -> Alarm | None:
        state = self._deps.state
        if self._looked == (len(state.shards), len(state.alarms)):
            return None
        # Copies: the streams are followed while the breaker works in its thread.
        shards, alarms = tuple(state.shards.values()), tuple(state.alarms)
        settled = self._looked[0] if self._looked and self._looked[1] == len(alarms) else 0
        return await asyncio.to_thread(breaker.judge, shards, alarms, self._settings, settled=settled)


def _log(event: Alarm) -> None:
    if isinstance(event, DiversityAlarmRaised):
        log.warning("diversity alarm, promotions pause: %s", "; ".join(event.alarms))
    else:
        log.info("the diversity alarm is over: %s", "; ".join(event.figures))
