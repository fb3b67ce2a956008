"""The rollback that nobody has to ask for: a promotion that failed is taken back, with the evidence.

Owns: looking, each round, at whether the live promotion failed, and flipping back. Two ways to fail: nobody serves it
(`watch`), or its first batches are worse than those of the version it replaced (`aftermath`). Of the second the figures
are stored first, once, and the ledger names their digest; its batches are withdrawn, for they are what failed, and the
trainer is sent back to its last checkpoint without any of them: what follows is promoted by itself too.
Does not know: the bounds, nor how an entry is written (`flips`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime

from jupiter import keys
from jupiter.controller import aftermath, watch, withdrawals
from jupiter.controller.deps import Deps
from jupiter.controller.flips import Request, flip_to_version
from jupiter.controller.metronome import request_id
from jupiter.controller.projection import Projection
from jupiter.errors import Conflict
from jupiter.events import ShardCurated
from jupiter.ledger import LedgerEntry

__all__ = ["Rollback", "shards_under"]

log = logging.getLogger(__name__)

ACTOR = "controller"


class Rollback:
    """One look at a time; call `advance` whenever something may have changed."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._watched_since: tuple[int, float] | None = None
        """(ledger sequence, monotonic time) since this process could have heard of loads."""
        self._fine: tuple[int, int, int] | None = None
        """(ledger sequence, shards, requests) when the first batches gave no reason to roll back."""

    async def advance(self, live: LedgerEntry) -> bool:
        """Take the live promotion back if it failed; return whether it had."""
        request = self._not_served(live) or await self._worse(live)
        if request is None:
            return False
        deps = self._deps
        try:
            async with deps.flipping:
                entry = await asyncio.to_thread(
                    flip_to_version, deps.blobs, live.domain, request, version=live.previous_version
                )
        except Conflict as error:
            log.info("no rollback needed any more: %s", error)
        else:
            log.warning("rolled back to version %d: %s", entry.version, request.reason)
            deps.following.changed.set()
        return True

    def _not_served(self, live: LedgerEntry) -> Request | None:
        if self._watched_since is None or self._watched_since[0] != live.sequence:
            self._watched_since = live.sequence, time.monotonic()
        reason = watch.failure_of(
            self._deps.state,
            live,
            now=datetime.now(UTC),
            watched_s=time.monotonic() - self._watched_since[1],
            load_timeout_s=self._deps.config.controller.load_timeout_s,
        )
        return None if reason is None else _request(live, reason)

    async def _worse(self, live: LedgerEntry) -> Request | None:
        deps = self._deps
        seen = live.sequence, len(deps.state.shards), len(deps.state.requests)
        if self._fine == seen:
            return None
        shards = shards_under(deps.state, live)
        failure = await asyncio.to_thread(aftermath.failure_of, shards, live, deps.config.diversity)
        if failure is None:
            self._fine = seen
            return None
        prefix, name = keys.generator_prefix(live.domain, live.version), f"aftermath-{live.sequence:08d}.json"
        # What stands there is the evidence: this controller may have stored it before it died.
        stands, digest = await asyncio.to_thread(deps.evidence.keep, prefix, name, failure)
        rewind = await withdrawals.can_go_back(deps, live.version)
        if not rewind:
            log.warning("no checkpoint of the run is without batches of version %d: it is not sent back", live.version)
        taken_back = {"evidence_sha256": digest, "quarantine": True, "rewind": rewind}
        return _request(live, stands.reason).model_copy(update=taken_back)


def _request(live: LedgerEntry, reason: str) -> Request:
    return Request(actor=ACTOR, reason=reason, action="rolled_back", expected_version=live.version)


def shards_under(state: Projection, live: LedgerEntry) -> tuple[ShardCurated, ...]:
    """Return all shards, but of the live version only those of what was requested under this very flip.

    A version that is promoted again, by a person who knows why, is judged by what it does now.
    """
    return tuple(
        shard
        for shard in state.shards.values()
        if shard.generator_version != live.version or _requested_under(state, shard, live)
    )


def _requested_under(state: Projection, shard: ShardCurated, live: LedgerEntry) -> bool:
    issued = state.requests.get(shard.batch_id)
    return issued is not None and issued.request_id == request_id(live, issued.sequence)
