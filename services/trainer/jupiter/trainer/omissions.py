"""What a run leaves out of its rounds because it was withdrawn.

Owns: finding out, when a round begins, what was withdrawn since the last one, and recording that so that a resumed run
leaves out the same in the same rounds. Does not know: how a shard without it looks (`shards`).

A withdrawal takes effect with the next round, whenever the log tells of it. That moment is chance, and a run that was
killed and takes up an older checkpoint would meet it in another round. So it is made a fact first: an object beside the
run's checkpoints says from which round on, created once before the round begins. Rounds that have been begun before are
repeated by these records and not by the log.

Where a record is damaged, its round is begun by the log once more. The log only grows, so the round leaves out all that
was recorded; it leaves out more where more was withdrawn since, and is then no exact repetition.
"""

from __future__ import annotations

import asyncio
import logging

from pydantic import ValidationError

from jupiter import keys, withdrawals
from jupiter.blobs import Blobs
from jupiter.bus import Bus
from jupiter.bus.codec import first_errors
from jupiter.errors import IntegrityError, NotFound
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
        self._recorded: dict[int, Omission | None] = {}
        """By the shard that began the round; None where the record is damaged."""

    async def open(self) -> None:
        """Read what the run has recorded before. Raises Unavailable."""
        self._recorded = await asyncio.to_thread(self._read)

    async def at(self, shard_sequence: int, *, known: Withdrawn) -> Omission | None:
        """Return what the round that this shard begins leaves out beyond `known`, None for nothing more.

        Waits for servers that are away: to begin the round without knowing would train on what was taken back.
        """
        stands = self._recorded.get(shard_sequence)
        damaged = stands is None and shard_sequence in self._recorded
        if shard_sequence <= max(self._recorded, default=0) and not damaged:
            return stands
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
        """Store the omission unless the round has one, and return the one that stands; this one if that is damaged."""
        self._blobs.create(self._key(omission.shard_sequence), canonical_json(omission))
        return self._stored(omission.shard_sequence) or omission

    def _read(self) -> dict[int, Omission | None]:
        listed = [info.key.removeprefix(self._prefix).removesuffix(".json") for info in self._blobs.list(self._prefix)]
        return {shard_sequence: self._stored(shard_sequence) for shard_sequence in map(int, listed)}

    def _stored(self, shard_sequence: int) -> Omission | None:
        """Return the record of the round that this shard began, None when it is damaged. Raises Unavailable."""
        key = self._key(shard_sequence)
        try:
            return _omission(self._blobs.get(key), shard_sequence)
        except (NotFound, IntegrityError) as error:
            log.error(  # noqa: TRY400
                "omission %s is damaged: %s; if its round is still to be trained, it leaves out all that is withdrawn "
                "by then; restore the object and start the trainer again to repeat the round exactly",
                key,
                error,
            )
            return None

    def _key(self, shard_sequence: int) -> str:
        return self._prefix + keys.omission_name(shard_sequence)


def _omission(data: bytes, shard_sequence: int) -> Omission:
    """Return what was stored for the round of a shard. Raises IntegrityError when it is no such record."""
    try:
        omission = Omission.model_validate_json(data)
    except ValidationError as error:
        raise IntegrityError(first_errors(error)) from error
    if omission.shard_sequence != shard_sequence:
        raise IntegrityError(f"it is of shard {omission.shard_sequence}")
    return omission
