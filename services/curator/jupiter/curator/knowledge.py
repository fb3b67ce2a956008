"""What a curator must know before it judges a batch, and how it catches up with the streams.

Owns: the order of reading (benchmark and tokenizer first, then documents, then shards), the waits when something is
not there yet. Does not know: any rule. All of it is derived state: a restart reads it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from jupiter import keys, manifests
from jupiter.blobs import Blobs
from jupiter.bus import Bus
from jupiter.config.sections import CuratorSection
from jupiter.curator.benchmark import ForbiddenTexts, read_forbidden_texts
from jupiter.curator.corpus import Corpus
from jupiter.curator.history import History
from jupiter.curator.shard import SAMPLES_FILE, SIGNATURES_FILE
from jupiter.curator.signatures import unpack
from jupiter.curator.tokens import TokenCounter, read_token_counter
from jupiter.errors import IntegrityError, NotFound, Retry
from jupiter.events import DocumentAccepted, ShardCurated
from jupiter.records import Document
from jupiter.sample_files import read_parquet

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
    """See the module. `corpus` and `history` grow; the rest is fixed once the benchmark is frozen."""

    tokens: TokenCounter
    forbidden: ForbiddenTexts
    corpus: Corpus
    history: History


async def open_knowledge(blobs: Blobs, *, domain: str, settings: CuratorSection) -> Knowledge:
    """Read what never changes. Raises Retry while the benchmark or generator version 1 is not there."""
    threshold = settings.near_duplicate_threshold
    forbidden = await asyncio.to_thread(read_forbidden_texts, blobs, domain, threshold=threshold)
    if forbidden is None:
        raise Retry("the benchmark is not frozen yet: nothing can be checked against it", delay_s=WAIT_S, counts=False)
    tokens = await asyncio.to_thread(read_token_counter, blobs, domain)
    if tokens is None:
        raise Retry("generator version 1 is not registered yet: its tokenizer counts", delay_s=WAIT_S, counts=False)
    corpus = Corpus(
        chunk_chars_max=settings.chunk_chars_max,
        near_duplicate_threshold=threshold,
        forbidden=forbidden,
        count_tokens=tokens.count,
    )
    return Knowledge(tokens, forbidden, corpus, History(near_duplicate_threshold=threshold))


async def catch_up(knowledge: Knowledge, *, bus: Bus, blobs: Blobs, domain: str, progress: Progress) -> None:
    """Read every document and shard that was published since the last time, each in stream order."""
    await _read_documents(knowledge.corpus, bus=bus, blobs=blobs, domain=domain, progress=progress)
    await _read_shards(knowledge.history, bus=bus, blobs=blobs, domain=domain, progress=progress)


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


async def _read_shards(history: History, *, bus: Bus, blobs: Blobs, domain: str, progress: Progress) -> None:
    last = await bus.last_sequence(ShardCurated.channel)
    subject = keys.subject(ShardCurated.channel, domain)
    async for entry in bus.read(subject, after=history.sequence, follow=False):
        if isinstance(entry.event, ShardCurated):
            await asyncio.to_thread(_take_shard, history, blobs, entry.event)
            await progress(entry.sequence, last, "shards")
        history.sequence = entry.sequence


def _take_shard(history: History, blobs: Blobs, event: ShardCurated) -> None:
    """Read one shard as its manifest says. Raises IntegrityError when the store does not hold what was committed."""
    manifest = manifests.read(blobs, event.manifest_key, sha256=event.manifest_sha256).manifest
    samples = read_parquet(manifests.download_bytes(blobs, manifest.file(SAMPLES_FILE)))
    signatures = unpack(manifests.download_bytes(blobs, manifest.file(SIGNATURES_FILE)))
    missing = [sample.sample_id for sample in samples if sample.sample_id not in signatures]
    if missing:
        raise IntegrityError(f"shard {event.shard_id} has no signatures for {len(missing)} samples, e.g. {missing[0]}")
    history.apply(event.shard_id, samples, signatures)
