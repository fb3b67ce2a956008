"""Is anything lost? Every request and every batch by its id: what became of it, or that it is still to come.

Owns: the question and its answer, from the streams alone. Does not know: how it is counted (`jupiter.lost_work`), nor
why something would be lost; it must not be.
"""

from __future__ import annotations

from jupiter import keys
from jupiter.bus import Bus, LogEntry
from jupiter.events import (
    BatchGenerated,
    DocumentAccepted,
    GenerationRequested,
    GenerationVoided,
    GeneratorPromoted,
    GeneratorRolledBack,
    ShardCurated,
)
from jupiter.lost_work import BATCHES_DURABLE, GENERATION_DURABLE, Work, buried, dead_letters, how_many_lost

__all__ = ["CHANNELS", "count_lost"]

CHANNELS = ("generation", "batches", "shards", "corpus", "generators")
"""What is read, besides the dead letters."""


async def count_lost(bus: Bus, *, domain: str) -> dict[str, int]:
    """Return, per kind of work, how much left no trace, and how much was done twice: it must be 0 of each."""
    generation, batching = keys.subject("generation", domain), keys.subject("batches", domain)
    generator = await bus.outstanding(generation, durable=GENERATION_DURABLE)
    curator = await bus.outstanding(batching, durable=BATCHES_DURABLE)
    letters = await dead_letters(bus)
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
    making = Work(asked=asked, buried=buried(letters, generation), place=generator)
    curating = Work(asked=batches, others=voids, buried=buried(letters, batching), place=curator)
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
