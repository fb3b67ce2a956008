"""The watch after a promotion: does anybody serve the new version?

Owns: when a promotion has failed, and the sentence that says why. Pure.
Does not know: how a rollback is written (`flips`).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from jupiter.controller.projection import Projection
from jupiter.events import GeneratorLoaded, GeneratorLoadFailed
from jupiter.ledger import LedgerEntry

__all__ = ["failure_of", "live_generators"]

# Statuses come about once a second while a generator works, but a long batch may keep its process busy.
LIVE_S = 60.0


def live_generators(state: Projection, now: datetime) -> set[str]:
    """Return the generator instances that said something within LIVE_S."""
    oldest = now - timedelta(seconds=LIVE_S)
    return {
        status.instance
        for status in state.statuses_of("generator")
        if datetime.fromisoformat(status.time) >= oldest and status.stage != "stopped"
    }


def failure_of(
    state: Projection, live: LedgerEntry, *, now: datetime, watched_s: float, load_timeout_s: float
) -> str | None:
    """Return why the live promotion must be rolled back, or None.

    `watched_s`: seconds since this controller could have heard a load of it; time in which nothing ran at all does not
    count. Only promotions are watched: a rollback goes to a version that was served before, and rolling back from it
    would flip to and fro.
    """
    if live.action != "promoted" or live.previous_version is None:
        return None
    heard = [load for (sequence, _), load in state.loads.items() if sequence == live.sequence]
    if any(isinstance(load, GeneratorLoaded) for load in heard):
        return None
    failed = {load.instance: load.reason for load in heard if isinstance(load, GeneratorLoadFailed)}
    if failed and live_generators(state, now) <= set(failed):
        return f"every live generator refused version {live.version}: {_first(failed.values())}"
    if watched_s >= load_timeout_s:
        refusals = f"; {len(failed)} refused it: {_first(failed.values())}" if failed else ""
        return f"no generator loaded version {live.version} within {load_timeout_s:g} s{refusals}{_waiting(state, now)}"
    return None


def _waiting(state: Projection, now: datetime) -> str:
    """Say what live generators wait for: a version that a machine had no room for is named with the reason."""
    live = live_generators(state, now)
    words = [
        f"; {status.instance} waits: {status.detail}"
        for status in state.statuses_of("generator")
        if status.instance in live and status.stage == "waiting"
    ]
    return "".join(words)


def _first(reasons: Iterable[str]) -> str:
    return next(iter(reasons))
