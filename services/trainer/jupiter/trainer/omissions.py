"""What a run leaves out of its rounds because it was withdrawn.

Owns: finding out, when a round begins, what was withdrawn since the last one, and recording that so that a resumed run
leaves out the same in the same rounds. Does not know: how a shard without it looks (`shards`).

A withdrawal takes effect with the next round, whenever the log tells of it. That moment is chance, and a run that was
killed and takes up an older checkpoint would meet it in another round. So it is made a fact first: an object beside the
run's checkpoints says from which round on, created once before the round begins. Rounds that have been begun before are
repeated by these records and not by the log.
"""

from __future__ import annotations

import asyncio
import logging

from jupiter import keys, withdrawals
from jupiter.blobs import Blobs
from jupiter.bus import Bus
from jupiter.records import canonical_json
from jupiter.trainer.outages import outlast
from jupiter.withdrawals import Omission, Withdrawn

__all__ = ["OmissionLog"]

log = logging.getLogger(__name__)

WAITING = "to learn what is withdrawn"


class OmissionLog:
    """The omissions of one run. `open` comes first."""

    def __init__(self, *, bus: Bus, blobs: Blobs, domain: str, run: str) -> None:
        self._bus, self._blobs, self._domain = bus, blobs, domain
        self._prefix = keys.omissions_prefix(domain, run)
        self._recorded: dict[int, Omission] = {}

    async def open(self) -> None:
        """Read what the run has recorded before. Raises Unavailable."""
        self._recorded = {one.shard_sequence: one for one in await asyncio.to_thread(self._read)}

    async def at(self, shard_sequence: int, *, known: Withdrawn) -> Omission | None:
        """Return what the round that this shard begins leaves out beyond `known`, None for nothing more.

        Waits for servers that are away: to begin the round without knowing would train on what was taken back.
        """
        if shard_sequence <= max(self._recorded, default=0):
            return self._recorded.get(shard_sequence)
        found = await outlast(lambda: withdrawals.read(self._bus, self._domain, after=known.sequence), waiting=WAITING)
        if not found.withdrawn:
            return None
        omission = Omission(shard_sequence=shard_sequence, withdrawn=found.withdrawn)
        omission = await outlast(lambda: asyncio.to_thread(self._record, omission), waiting=WAITING)
        self._recorded[shard_sequence] = omission
        log.warning(
            "from shard %d on this is left out too: batches of versions %s, %d documents",
            shard_sequence,
            [one.version for one in omission.withdrawn.quarantined],
            len(omission.withdrawn.forgotten),
        )
        return omission

    def _record(self, omission: Omission) -> Omission:
        """Store the omission unless the round has one, and return the one that stands."""
        key = self._prefix + keys.omission_name(omission.shard_sequence)
        self._blobs.create(key, canonical_json(omission))
        return Omission.model_validate_json(self._blobs.get(key))

    def _read(self) -> list[Omission]:
        return [Omission.model_validate_json(self._blobs.get(info.key)) for info in self._blobs.list(self._prefix)]
