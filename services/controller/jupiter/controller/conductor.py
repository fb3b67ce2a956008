"""The controller's main loop and its slow companion.

Owns: the rhythm. Each round is `alarms`, `verdicts`, `renewals`, `promotion`, `metronome`, then telling; anything that
changes starts a round at once. A server that is away is waited for, and the next round finds out anew what is to be
done.
Does not know: any decision.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from jupiter import keys
from jupiter.controller import collection
from jupiter.controller.accounting import account
from jupiter.controller.alarms import Alarms
from jupiter.controller.burials import Burials
from jupiter.controller.collection import StoredCheckpoint
from jupiter.controller.deps import Deps
from jupiter.controller.metronome import plan
from jupiter.controller.promotion import Promotion, wanted
from jupiter.controller.renewals import Renewals
from jupiter.controller.state_file import StateFile
from jupiter.controller.verdicts import Verdicts
from jupiter.errors import NotFound, Unavailable
from jupiter.ledger import current, openings, read_ledger

__all__ = ["Conductor"]

log = logging.getLogger(__name__)

# A round without news: load time-outs and lost servers are noticed within this.
TICK_S = 1.0
# How long a buried request may take up room in the allowance.
BURIALS_S = 2.0


class Conductor:
    """Runs the rounds of one controller."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._alarms = Alarms(deps)
        self._verdicts = Verdicts(deps)
        self._renewals = Renewals(deps)
        self._promotion = Promotion(deps)
        self._burials = Burials(deps)
        self._state_file = StateFile(deps.config)

    async def run(self) -> None:
        """Conduct until the service stops."""
        await self._repeat(self.round, lambda: self._pause(self._deps.following.changed, TICK_S))

    async def collect(self) -> None:
        """Delete what is no longer needed, every `gc_interval_s`."""
        interval_s = self._deps.config.controller.gc_interval_s
        await self._repeat(self.collect_once, lambda: self._pause(self._deps.runtime.stop, interval_s))

    async def give_up(self) -> None:
        """Void what ended in the dead letters, every BURIALS_S."""
        await self._repeat(self._burials.give_up, lambda: self._pause(self._deps.runtime.stop, BURIALS_S))

    async def follow(self) -> None:
        """Keep the projection up to date until the service stops."""
        await self._deps.following.run(self._deps.runtime.stop)

    async def _repeat(self, work: Callable[[], Awaitable[None]], pause: Callable[[], Awaitable[None]]) -> None:
        while not self._deps.runtime.stop.is_set():
            try:
                await work()
            except Unavailable as error:
                log.warning("a server is away, trying again: %s", error)
                await self._pause(self._deps.runtime.stop, TICK_S)
            await pause()

    async def _pause(self, until: asyncio.Event, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(until.wait(), seconds)

    async def round(self) -> None:
        """Do what is to be done now, and say so."""
        self._deps.following.changed.clear()
        await self._alarms.advance()
        await self._verdicts.advance()
        await self._renewals.advance()
        await self._promotion.advance()
        await self._request()
        await self._tell()

    async def _request(self) -> None:
        planned = plan(self._deps.state, current(self._deps.ledger.entries), self._deps.config, self._deps.domain)
        for request in planned.requests:
            receipt = await self._deps.bus.publish(request)
            if not receipt.duplicate:
                self._deps.state.apply(request, receipt.sequence)
            # Else another controller asked first, perhaps for other documents: what it asked for comes by the stream.
        self._deps.waits_for = planned.waits_for

    async def _tell(self) -> None:
        deps, ledger = self._deps, self._deps.ledger.entries
        await asyncio.to_thread(self._state_file.write, deps.state, ledger)
        live = current(ledger)
        deps.metrics.evaluations_unsettled.set(len(deps.state.unsettled()))
        deps.metrics.sealed_openings.set(len(openings(ledger, version=live.version)) if live else 0)
        await deps.runtime.status(
            "waiting" if deps.waits_for else "conducting",
            detail="; ".join(deps.waits_for),
            done=len(deps.state.shards),
            total=len(deps.state.requests) - len(deps.state.voided),
            unit="shards",
            generator_version=live.version if live else None,
            lost=(await account(deps)).lost,
        )

    async def collect_once(self) -> None:
        """Verify the whole ledger again, then delete what the rules of `collection` let go."""
        deps, section = self._deps, self._deps.config.self_improvement
        ledger = await asyncio.to_thread(read_ledger, deps.blobs, deps.runtime.domain)
        spare = collection.collectable(
            await self._stored_checkpoints(),
            referred={entry.checkpoint_id for entry in ledger if entry.checkpoint_id}
            | {rewind.checkpoint_id for rewind in deps.state.rewinds.values() if rewind.checkpoint_id},
            keep_last_n=section.keep_last_n_checkpoints,
        )
        base = collection.base_collectable(
            ledger, always_keep=section.always_keep_base_generator, keep_last_n=section.keep_last_n_checkpoints
        )
        freed = 0
        async with deps.flipping:
            with suppress(NotFound):  # another controller collects at the same time: it does our work
                freed += await asyncio.to_thread(collection.delete, deps.blobs, deps.runtime.domain, spare)
                if base:
                    freed += await asyncio.to_thread(collection.delete_base_weights, deps.blobs, deps.runtime.domain)
        if freed:
            log.info("freed %.1f MB of checkpoints", freed / 1e6)

    async def _stored_checkpoints(self) -> tuple[StoredCheckpoint, ...]:
        """Return every checkpoint with the state of its evaluation."""
        state = self._deps.state
        # In a dry run nobody will ever act on a verdict, so none of them keeps a checkpoint.
        acts = self._deps.config.self_improvement.mode != "dry_run"
        pending = {verdict.checkpoint_id for verdict, _ in await wanted(self._deps)} if acts else set()
        unsettled = {event.checkpoint_id for event in state.unsettled()}
        judged = {event.checkpoint_id for event in state.evaluations.values()}
        judged |= {verdict.checkpoint_id for verdict in state.not_evaluated() if verdict.checkpoint_id}
        return tuple(
            StoredCheckpoint(
                checkpoint_id=checkpoint.checkpoint_id,
                run=checkpoint.run,
                step=checkpoint.step,
                evaluation="wanted"
                if checkpoint.checkpoint_id in pending
                else "open"
                if checkpoint.checkpoint_id in unsettled
                else "judged"
                if checkpoint.checkpoint_id in judged
                else "none",
            )
            for checkpoint in state.checkpoints.values()
            if checkpoint.manifest_key == _manifest_key(state.domain, checkpoint.run, checkpoint.step)
        )


def _manifest_key(domain: str, run: str, step: int) -> str:
    return keys.manifest_key(keys.checkpoint_prefix(domain, run, step))
