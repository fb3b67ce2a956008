"""Work that left no trace, counted by its id: what was asked, what became of it, and what is still to come.

Owns: the counting, and whose work is counted. Does not know: who read the streams (`jupiter.local.losses` at the end of
a run, the controller all the while).

Work is accounted for when an event says what became of it (a batch, a shard, a void), when it lies in the dead letters,
or when the server still has it for a consumer that has not acked it. Whatever else was asked for is lost.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from jupiter.bus import Bus, DeadLetter, Outstanding

__all__ = ["BATCHES_DURABLE", "GENERATION_DURABLE", "Work", "buried", "dead_letters", "how_many_lost"]

# The durable names are the services' own, by the project's contract.
GENERATION_DURABLE = "generator"
BATCHES_DURABLE = "curator-batches"
LETTERS_PER_READ = 1_000


@dataclass(frozen=True, kw_only=True)
class Work:
    """What one consumer was given to do, by sequence in its stream."""

    asked: Mapping[int, str]
    """Sequence -> id of the work. Work that was replayed from the dead letters has two sequences."""
    others: Collection[int] = ()
    """Sequences of the messages in between that ask for nothing."""
    buried: Collection[int] = ()
    """Sequences that lie in the dead letters."""
    place: Outstanding
    """Where the consumer was before anything else was read: it acks last."""


def how_many_lost(work: Work, *, accounted: Collection[str]) -> int:
    """Return how many ids of the work no event accounts for and no consumer has before it.

    The server tells which messages were never delivered, which are acked, and of those in hand (delivered, and some of
    them acked) only the number. So in hand no more are excused than are not acked, less the first where its work is
    finished: that one is never acked yet.
    """
    place = work.place
    sequences: dict[str, list[int]] = defaultdict(list)
    for sequence, work_id in work.asked.items():
        if work_id not in accounted:
            sequences[work_id].append(sequence)
    open_work = {
        work_id: found
        for work_id, found in sequences.items()
        if not set(found) & set(work.buried) and max(found) <= place.delivered_through
    }
    in_hand = {work_id for work_id, found in open_work.items() if max(found) > place.acked_through}
    first = min((one for one in (*work.asked, *work.others) if one > place.acked_through), default=None)
    first_is_finished = first is not None and work.asked.get(first) not in in_hand
    excused = max(0, place.unacked - first_is_finished)
    return len(open_work) - len(in_hand) + max(0, len(in_hand) - excused)


async def dead_letters(bus: Bus, *, after: int = 0) -> list[DeadLetter]:
    """Return every dead letter with sequence > `after`."""
    letters: list[DeadLetter] = []
    while more := await bus.dead_letters(after=letters[-1].sequence if letters else after, limit=LETTERS_PER_READ):
        letters += more
    return letters


def buried(letters: Collection[DeadLetter], subject: str) -> frozenset[int]:
    """Return the sequences, in the stream of the subject, of what lies in the letters."""
    return frozenset(letter.origin_sequence for letter in letters if letter.subject == subject)
