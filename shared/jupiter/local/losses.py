"""Is anything lost? Every request and every batch by its id: what became of it, or that it is still to come.

Owns: the question and its answer, from the streams alone. Does not know: why something would be lost; it must not be.

Work is accounted for when an event says what became of it (a batch, a shard, a void), when it lies in the dead letters,
or when the server still has it for a consumer that has not acked it. Whatever else was asked for is lost.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from jupiter import keys
from jupiter.bus import Bus, DeadLetter, LogEntry, Outstanding
from jupiter.events import (
    BatchGenerated,
    DocumentAccepted,
    GenerationRequested,
    GenerationVoided,
    GeneratorPromoted,
    GeneratorRolledBack,
    ShardCurated,
)

__all__ = ["CHANNELS", "Work", "count_lost", "how_many_lost"]

CHANNELS = ("generation", "batches", "shards", "corpus", "generators")
"""What is read, besides the dead letters."""
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


async def count_lost(bus: Bus, *, domain: str) -> dict[str, int]:
    """Return, per kind of work, how much left no trace, and how much was done twice: it must be 0 of each."""
    generation, batching = keys.subject("generation", domain), keys.subject("batches", domain)
    generator = await bus.outstanding(generation, durable=GENERATION_DURABLE)
    curator = await bus.outstanding(batching, durable=BATCHES_DURABLE)
    letters = await _letters(bus)
    requests = await _log(bus, generation)
    made = await _log(bus, batching)
    shards = await _log(bus, keys.subject("shards", domain))
    batches = {entry.sequence: entry.event.batch_id for entry in made if isinstance(entry.event, BatchGenerated)}
    voids = {entry.sequence: entry.event.request_id for entry in made if isinstance(entry.event, GenerationVoided)}
    voided = frozenset(voids.values())
    curated = frozenset(entry.event.batch_id for entry in shards if isinstance(entry.event, ShardCurated))
    asked = {
        entry.sequence: entry.event.request_id for entry in requests if isinstance(entry.event, GenerationRequested)
    }
    making = Work(asked=asked, buried=_buried(letters, generation), place=generator)
    curating = Work(asked=batches, others=voids, buried=_buried(letters, batching), place=curator)
    return {
        "requests": how_many_lost(making, accounted=voided.union(batches.values())),
        "batches": how_many_lost(curating, accounted=voided | curated),
        **await _doubled(bus, domain),
    }


async def _doubled(bus: Bus, domain: str) -> dict[str, int]:
    corpus = await _log(bus, keys.subject("corpus", domain))
    documents = [entry.event.document_id for entry in corpus if isinstance(entry.event, DocumentAccepted)]
    generators = await _log(bus, keys.subject("generators", domain))
    flips = [
        entry.event.ledger_sequence
        for entry in generators
        if isinstance(entry.event, (GeneratorPromoted, GeneratorRolledBack))
    ]
    return {
        "documents_doubled": len(documents) - len(set(documents)),
        "flips_doubled": len(flips) - len(set(flips)),
    }


async def _log(bus: Bus, subject: str) -> list[LogEntry]:
    return [entry async for entry in bus.read(subject, follow=False)]


async def _letters(bus: Bus) -> list[DeadLetter]:
    letters: list[DeadLetter] = []
    while more := await bus.dead_letters(after=letters[-1].sequence if letters else 0, limit=LETTERS_PER_READ):
        letters += more
    return letters


def _buried(letters: list[DeadLetter], subject: str) -> frozenset[int]:
    return frozenset(letter.origin_sequence for letter in letters if letter.subject == subject)
