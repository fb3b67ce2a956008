"""What was taken back: batches of a version that was rolled back with quarantine, documents that were recalled.

Owns: the set of all that is withdrawn, how it grows with the log `withdrawals.<domain>`, and how a run is called that
went back to an earlier checkpoint. Does not know: what a service does about it.

The set only grows, and everything in it is asked by plain values, so the same place in the log is the same set in every
service and after every restart.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from jupiter import keys
from jupiter.bus import Bus
from jupiter.events import DocumentForgotten, Event, RewindRequested, VersionQuarantined
from jupiter.records import SharedRecord

__all__ = [
    "CHANNEL",
    "Omission",
    "Quarantine",
    "Reading",
    "Withdrawn",
    "base_run",
    "read",
    "rewound_run",
    "together",
]

CHANNEL = VersionQuarantined.channel

_REWOUND = re.compile(r"-rewound-\d+$")


class Quarantine(SharedRecord):
    """Batches of `version` up to this request sequence are out; later ones, of a version promoted anew, are not."""

    version: int
    request_sequence_max: int


class Withdrawn(SharedRecord):
    """What the log withdrew, up to and with the entry `sequence`."""

    sequence: int = 0
    quarantined: tuple[Quarantine, ...] = ()
    """One for each version, by version."""
    forgotten: tuple[str, ...] = ()
    """Document ids, sorted."""

    def has_batch(self, *, version: int, sequence: int) -> bool:
        """Whether the batch that `version` made for the request `sequence` is out."""
        return any(one.version == version and sequence <= one.request_sequence_max for one in self.quarantined)

    def has_document(self, document_id: str) -> bool:
        """Whether the document is forgotten."""
        return document_id in self.forgotten

    def __bool__(self) -> bool:
        """Whether anything is withdrawn."""
        return bool(self.quarantined or self.forgotten)

    def with_event(self, event: Event, sequence: int) -> Withdrawn:
        """Return the set after one more entry of the log."""
        more = Withdrawn(sequence=sequence)
        if isinstance(event, VersionQuarantined):
            taken = Quarantine(version=event.version, request_sequence_max=event.request_sequence_max)
            more = more.model_copy(update={"quarantined": (taken,)})
        elif isinstance(event, DocumentForgotten):
            more = more.model_copy(update={"forgotten": (event.document_id,)})
        return self.plus(more)

    def plus(self, more: Withdrawn) -> Withdrawn:
        """Return both together."""
        reach = {one.version: one.request_sequence_max for one in self.quarantined}
        for one in more.quarantined:
            reach[one.version] = max(one.request_sequence_max, reach.get(one.version, 0))
        return Withdrawn(
            sequence=max(self.sequence, more.sequence),
            quarantined=tuple(
                Quarantine(version=version, request_sequence_max=last) for version, last in sorted(reach.items())
            ),
            forgotten=tuple(sorted({*self.forgotten, *more.forgotten})),
        )


class Omission(SharedRecord):
    """From one round of a run on, this is left out too: so the run's state says what it was trained without."""

    shard_sequence: int
    """Stream sequence of the shard that began the round."""
    withdrawn: Withdrawn


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A stretch of the log."""

    withdrawn: Withdrawn
    """What it withdraws; its sequence is that of the last entry read, also where that is a rewind."""
    rewinds: tuple[RewindRequested, ...] = ()
    """In stream order."""


async def read(bus: Bus, domain: str, *, after: int = 0) -> Reading:
    """Return what the log holds after an entry, up to its present end. Raises Unavailable."""
    withdrawn, rewinds = Withdrawn(sequence=after), []
    async for entry in bus.read(keys.subject(CHANNEL, domain), after=after, follow=False):
        withdrawn = withdrawn.with_event(entry.event, entry.sequence)
        if isinstance(entry.event, RewindRequested):
            rewinds.append(entry.event)
    return Reading(withdrawn=withdrawn, rewinds=tuple(rewinds))


def rewound_run(run: str, ledger_sequence: int) -> str:
    """Return the name under which a run goes on after a rewind: checkpoints are told apart by run and step."""
    return f"{base_run(run)}-rewound-{ledger_sequence}"


def base_run(run: str) -> str:
    """Return the name that the run was begun with (`trainer.run`), before any rewind."""
    return _REWOUND.sub("", run)


def together(parts: Iterable[Withdrawn]) -> Withdrawn:
    """Return all of them as one set."""
    whole = Withdrawn()
    for part in parts:
        whole = whole.plus(part)
    return whole
