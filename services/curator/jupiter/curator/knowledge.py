"""What a curator must know before it judges a batch, and how it catches up with the streams.

Owns: the order of reading (benchmark and tokenizer first, then documents, then shards), the waits when something is
not there yet, what is passed over because it was withdrawn. Does not know: any rule. All of it is derived state: a
restart reads it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from jupiter import keys, manifests
from jupiter.blobs import Blobs
from jupiter.bus import Bus
from jupiter.config.sections import CuratorSection
from jupiter.curator.alarms import Alarms
from jupiter.curator.benchmark import read_forbidden
from jupiter.curator.corpus import Corpus
from jupiter.curator.history import History
from jupiter.curator.shard import SAMPLES_FILE, SIGNATURES_FILE
from jupiter.curator.tokens import TokenCounter, read_token_counter
from jupiter.errors import IntegrityError, NotFound, Retry
from jupiter.events import DiversityAlarmCleared, DiversityAlarmRaised, DocumentAccepted, ShardCurated
from jupiter.overlap.forbidden import ForbiddenTexts
from jupiter.overlap.signatures import Store, unpack
from jupiter.records import Document
from jupiter.sample_files import read_parquet
from jupiter.withdrawals import Withdrawn

__all__ = ["Knowledge", "catch_up", "open_knowledge"]

WAIT_S = 2.0
"""Before a batch looks again for a benchmark or a first generator version."""
FETCHES_MAX = 8
"""Documents read from the store at a time."""
DOCUMENTS_AT_ONCE_MAX = 256
"""Documents taken in between two progress reports."""

Progress = Callable[[int, int, str], Coroutine[Any, Any, None]]
"""Done, total, unit."""


@dataclass(frozen=True)
class Knowledge:
    """See the module. `corpus`, `history` and `alarms` grow; the rest is fixed while no other benchmark is frozen."""

    tokens: TokenCounter
    forbidden: ForbiddenTexts
    generation: int
    """Of the benchmark whose texts are forbidden."""
    corpus: Corpus
    history: History
    withdrawn: Withdrawn
    """What corpus and history were read without."""
    alarms: Alarms = field(default_factory=Alarms)


async def open_knowledge(blobs: Blobs, *, domain: str, settings: CuratorSection, withdrawn: Withdrawn) -> Knowledge:
    """Read what never changes. When more is withdrawn, or another benchmark is frozen, knowledge is opened anew: so
    nothing is ever undone in it.

    Raises Retry while the benchmark or generator version 1 is not there."""
    threshold = settings.near_duplicate_threshold
    forbidden = await asyncio.to_thread(read_forbidden, blobs, domain, threshold=threshold)
    if forbidden is None:
        raise Retry("the benchmark is not frozen yet: nothing can be checked against it", delay_s=WAIT_S, counts=False)
    tokens = await asyncio.to_thread(read_token_counter, blobs, domain)
    if tokens is None:
        raise Retry("generator version 1 is not registered yet: its tokenizer counts", delay_s=WAIT_S, counts=False)
    corpus = Corpus(
        chunk_chars_max=settings.chunk_chars_max,
        near_duplicate_threshold=threshold,
        forbidden=forbidden.texts,
        count_tokens=tokens.count,
        forgotten=withdrawn.forgotten,
        decontaminate=settings.decontaminate,
    )
    store = await asyncio.to_thread(_shared_store, settings, domain) if settings.redis_url else None
    history = History(near_duplicate_threshold=threshold, store=store)
    return Knowledge(tokens, forbidden.texts, forbidden.generation, corpus, history, withdrawn)


def _shared_store(settings: CuratorSection, domain: str) -> Store:
    from jupiter.curator.shared_index import SharedStore  # needs redis only where it is used

    return SharedStore(settings.redis_url, domain=domain, threshold=settings.near_duplicate_threshold)


async def catch_up(knowledge: Knowledge, *, bus: Bus, blobs: Blobs, domain: str, progress: Progress) -> None:
    """Read every document, shard and alarm that was published since the last time, each in stream order."""
    await _read_documents(knowledge.corpus, bus=bus, blobs=blobs, domain=domain, progress=progress)
    await _read_shards(knowledge, bus=bus, blobs=blobs, domain=domain, progress=progress)
    await _read_alarms(knowledge.alarms, bus=bus, domain=domain)


async def _read_documents(corpus: Corpus, *, bus: Bus, blobs: Blobs, domain: str, progress: Progress) -> None:
    last = await bus.last_sequence(DocumentAccepted.channel)
    waiting: list[DocumentAccepted] = []
    subject = keys.subject(DocumentAccepted.channel, domain)
    async for entry in bus.read(subject, after=corpus.sequence, follow=False):
        if isinstance(entry.event, DocumentAccepted):
            waiting.append(entry.event)
        if len(waiting) >= DOCUMENTS_AT_ONCE_MAX:
            await asyncio.to_thread(_take_documents, corpus, blobs, waiting)
            waiting = []
            await progress(entry.sequence, last, "documents")
        corpus.sequence = entry.sequence if not waiting else corpus.sequence
    if waiting:
        await asyncio.to_thread(_take_documents, corpus, blobs, waiting)
        corpus.sequence = entry.sequence


def _take_documents(corpus: Corpus, blobs: Blobs, accepted: Sequence[DocumentAccepted]) -> None:
    """Fetch the training documents side by side, then add all in stream order."""

    def body(event: DocumentAccepted) -> bytes | None:
        try:
            return blobs.get(event.key)
        except NotFound:  # withdrawn since: samples of it are then of an unknown document
            return None

    with ThreadPoolExecutor(max_workers=FETCHES_MAX) as pool:
        bodies = list(pool.map(body, [event for event in accepted if event.split == "training"]))
    for event in accepted:
        if event.split == "held_out":
            corpus.add_held_out(event.document_id)
    corpus.add_training([Document.model_validate_json(data) for data in bodies if data is not None])


async def _read_shards(knowledge: Knowledge, *, bus: Bus, blobs: Blobs, domain: str, progress: Progress) -> None:
    history = knowledge.history
    last = await bus.last_sequence(ShardCurated.channel)
    subject = keys.subject(ShardCurated.channel, domain)
    async for entry in bus.read(subject, after=history.sequence, follow=False):
        if isinstance(entry.event, ShardCurated):
            await asyncio.to_thread(_take_shard, knowledge, blobs, entry.event)
            await progress(entry.sequence, last, "shards")
        history.sequence = entry.sequence


def _take_shard(knowledge: Knowledge, blobs: Blobs, event: ShardCurated) -> None:
    """Read one shard as its manifest says, without what was withdrawn: later samples are no duplicates of that.

    Raises IntegrityError when the store does not hold what was committed.
    """
    withdrawn = knowledge.withdrawn
    manifest = manifests.read(blobs, event.manifest_key, sha256=event.manifest_sha256).manifest
    if withdrawn.has_batch(version=event.generator_version, sequence=manifest.details["batch_sequence"]):
        return
    samples = read_parquet(manifests.download_bytes(blobs, manifest.file(SAMPLES_FILE)))
    signatures = unpack(manifests.download_bytes(blobs, manifest.file(SIGNATURES_FILE)))
    missing = [sample.sample_id for sample in samples if sample.sample_id not in signatures]
    if missing:
        raise IntegrityError(f"shard {event.shard_id} has no signatures for {len(missing)} samples, e.g. {missing[0]}")
    kept = [sample for sample in samples if not withdrawn.has_document(sample.document_id)]
    knowledge.history.apply(event.shard_id, kept, signatures)


async def _read_alarms(alarms: Alarms, *, bus: Bus, domain: str) -> None:
    subject = keys.subject(DiversityAlarmRaised.channel, domain)
    async for entry in bus.read(subject, after=alarms.sequence, follow=False):
        if isinstance(entry.event, DiversityAlarmRaised | DiversityAlarmCleared):
            alarms.apply(entry.event)
        alarms.sequence = entry.sequence
