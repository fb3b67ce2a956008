"""Recall of a document: telling everybody to leave it out, and listing all that came from it.

Owns: finding the document that a person means, `DocumentForgotten`, and the list: passages, batches, samples, shards,
checkpoints and versions that have it in their weights, benchmark items.
Does not know: how curator and trainer leave it out. Nothing is deleted: what is stored stays as the record says.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

from jupiter import manifests
from jupiter.blobs import Blobs
from jupiter.controller.consumption import consumption
from jupiter.controller.contents import contents, samples_of
from jupiter.controller.deps import Deps
from jupiter.controller.projection import Projection
from jupiter.controller.views import View
from jupiter.errors import NotFound, Rejected
from jupiter.events import BenchmarkFrozen, DocumentAccepted, DocumentForgotten
from jupiter.ledger import flips
from jupiter.withdrawals import CHANNEL

__all__ = ["Recall", "find_document", "forget", "recall_of"]

PREFIX_CHARS_MIN = 4
SHOWN_MAX = 5
BENCHMARK_FILE = "benchmark.json"


class BatchFrom(View):
    """A batch in which samples of the document were asked for."""

    batch_id: str
    sequence: int
    generator_version: int
    asked: int


class ShardFrom(View):
    """A shard that holds samples of the document."""

    shard_id: str
    sequence: int
    synthetic: tuple[str, ...]
    """Sample ids."""
    real: tuple[str, ...]


class CheckpointWith(View):
    """A stored checkpoint that was trained on samples of the document."""

    checkpoint_id: str
    run: str
    step: int
    version: int | None
    shards: int


class Recall(View):
    """All that came from one document."""

    document_id: str
    title: str | None
    source: str
    split: str
    forgotten: bool
    chunks: int
    requests_open: int
    """Requests under way that ask for it; what they bring is dropped."""
    batches: tuple[BatchFrom, ...]
    shards: tuple[ShardFrom, ...]
    checkpoints: tuple[CheckpointWith, ...]
    versions: tuple[int, ...]
    """Generator versions with the document in their weights."""
    benchmark_items: tuple[str, ...]
    """Items made from its group of held-out documents, of every generation. A frozen benchmark is not changed."""
    lines: tuple[str, ...]
    """The same for people, plainly."""


def find_document(state: Projection, name: str) -> DocumentAccepted:
    """Return the document meant by an id, the beginning of one, a source or a title.

    Raises NotFound for none, Rejected for several.
    """
    if name in state.documents:
        return state.documents[name]
    known = state.documents.values()
    found = [one for one in known if len(name) >= PREFIX_CHARS_MIN and one.document_id.startswith(name)]
    found = found or [one for one in known if name in (one.source, one.title)]
    if not found:
        raise NotFound(
            f"no document has the id, source or title {name!r}; a prefix needs {PREFIX_CHARS_MIN} characters"
        )
    if len(found) > 1:
        shown = ", ".join(f"{one.document_id[:12]} ({one.source})" for one in found[:SHOWN_MAX])
        more = f" and {len(found) - SHOWN_MAX} more" if len(found) > SHOWN_MAX else ""
        raise Rejected(f"{len(found)} documents are meant by {name!r}: {shown}{more}; name one by its id")
    return found[0]


async def forget(deps: Deps, name: str, *, actor: str, reason: str) -> Recall:
    """Tell everybody to leave the document out, once, and return all that came from it."""
    document = find_document(deps.state, name)
    if document.document_id not in deps.state.forgotten:
        await deps.bus.publish(
            DocumentForgotten(domain=deps.state.domain, document_id=document.document_id, actor=actor, reason=reason)
        )
        await deps.following.catch_up(CHANNEL)
    return await recall_of(deps, document.document_id)


async def recall_of(deps: Deps, name: str) -> Recall:
    """Return all that came from a document, whether it is forgotten or not."""
    document = find_document(deps.state, name)
    ledger = await asyncio.to_thread(deps.ledger.refresh)
    versions = {entry.checkpoint_id: entry.version for entry in flips(ledger) if entry.checkpoint_id}
    return await asyncio.to_thread(_recall, deps.blobs, deps.state, document, versions)


def _recall(blobs: Blobs, state: Projection, document: DocumentAccepted, versions: dict[str, int]) -> Recall:
    document_id = document.document_id
    asked = [issued for issued in list(state.requests.values()) if document_id in issued.document_ids]
    shards = _shards(blobs, state, document_id)
    checkpoints = _checkpoints(blobs, state, document_id, shards, versions)
    recall = Recall(
        document_id=document_id,
        title=document.title,
        source=document.source,
        split=document.split,
        forgotten=document_id in state.forgotten,
        chunks=document.chunks,
        requests_open=sum(
            1 for issued in asked if issued.request_id not in state.batches and issued.request_id not in state.voided
        ),
        batches=tuple(
            BatchFrom(
                batch_id=issued.request_id,
                sequence=issued.sequence,
                generator_version=issued.generator_version,
                asked=issued.document_ids.count(document_id),
            )
            for issued in asked
            if issued.request_id in state.batches
        ),
        shards=shards,
        checkpoints=checkpoints,
        versions=tuple(sorted({one.version for one in checkpoints if one.version is not None})),
        benchmark_items=_benchmark_items(blobs, list(state.benchmarks.values()), document),
        lines=(),
    )
    return recall.model_copy(update={"lines": _lines(recall)})


def _shards(blobs: Blobs, state: Projection, document_id: str) -> tuple[ShardFrom, ...]:
    found = []
    for content in contents(blobs, list(state.shards.values())).values():
        if content.has(document_id):
            samples = samples_of(blobs, content.shard, document_id)
            found.append(
                ShardFrom(
                    shard_id=content.shard.shard_id,
                    sequence=state.shard_sequences[content.shard.shard_id],
                    synthetic=tuple(one.sample_id for one in samples if one.origin == "synthetic"),
                    real=tuple(one.sample_id for one in samples if one.origin == "real"),
                )
            )
    return tuple(found)


def _checkpoints(
    blobs: Blobs, state: Projection, document_id: str, shards: Sequence[ShardFrom], versions: dict[str, int]
) -> tuple[CheckpointWith, ...]:
    sequences = {shard.shard_id: shard.sequence for shard in shards}
    fed = consumption(blobs, list(state.checkpoints.values()))
    return tuple(
        CheckpointWith(
            checkpoint_id=checkpoint_id,
            run=one.checkpoint.run,
            step=one.checkpoint.step,
            version=versions.get(checkpoint_id),
            shards=len(learned),
        )
        for checkpoint_id, one in fed.items()
        if (learned := one.learned_from(document_id, sequences))
    )


def _benchmark_items(blobs: Blobs, frozen: Sequence[BenchmarkFrozen], document: DocumentAccepted) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for one in frozen if document.split == "held_out" else ():
        manifest = manifests.read(blobs, one.manifest_key, sha256=one.manifest_sha256).manifest
        benchmark = json.loads(manifests.download_bytes(blobs, manifest.file(BENCHMARK_FILE)))
        found |= {item["item_id"]: None for item in benchmark["items"] if item["cluster"] == document.group}
    return tuple(found)


def _lines(recall: Recall) -> tuple[str, ...]:
    synthetic = sum(len(shard.synthetic) for shard in recall.shards)
    real = sum(len(shard.real) for shard in recall.shards)
    made = f"{synthetic} synthetic and {real} real samples in {len(recall.shards)} shards"
    lines = [f"{recall.chunks} passages; asked for in {len(recall.batches)} batches; {made}"]
    if recall.versions:
        named = ", ".join(f"v{version}" for version in recall.versions)
        lines.append(
            f"already in weights of {named}: forgetting takes nothing out of a trained model; a new training run "
            "without it: set trainer.run to a new name and start the trainer"
        )
    elif recall.checkpoints:
        lines.append("in weights of stored checkpoints, of no generator version")
    else:
        lines.append("in no stored weights")
    if recall.requests_open:
        lines.append(f"{recall.requests_open} requests under way still ask for it; the curator drops what they bring")
    if recall.benchmark_items:
        lines.append(
            f"held out: {len(recall.benchmark_items)} items of the frozen benchmark come from its group; the benchmark "
            "stays as it is, since every verdict rests on it"
        )
    return tuple(lines)
