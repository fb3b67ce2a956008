"""What the curator does with a published document and with a generated batch.

Owns: the two handlers and their order of steps. Does not know: ack and nak (`jupiter.deliveries`), any filter or ratio.
Both may be called again for the same input at any time: a document's key and a shard's manifest are created once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from jupiter import keys, manifests
from jupiter.chunks import chunk
from jupiter.config.sections import CuratorSection
from jupiter.curator.filters import Context
from jupiter.curator.filters.base import CodeRunner
from jupiter.curator.intake import document_from
from jupiter.curator.knowledge import Knowledge, catch_up, open_knowledge
from jupiter.curator.metrics import Metrics
from jupiter.curator.pipeline import Judged, Rejection, candidates_of, judge
from jupiter.curator.shard import Shard, build_shard, commit_shard
from jupiter.errors import IntegrityError, NotFound, Rejected, Retry
from jupiter.events import BatchGenerated, DocumentAccepted, Event, GenerationVoided, ShardCurated
from jupiter.records import Document, Manifest, Sample, canonical_json
from jupiter.sample_files import read_json_lines
from jupiter.service import Runtime, Subscription

__all__ = ["Deps", "accept_document", "curate_batch", "pass_over_voided", "subscriptions"]

log = logging.getLogger(__name__)

BATCH_FILE = "samples.jsonl.zst"
HOLD_S = 5.0
"""Before a batch that waits for real data is looked at again."""
BLOCKED_S = 15.0
"""Before a curator that cannot read an earlier shard tries again."""
SAMPLES_MAX = 100_000
"""A batch with more lines is no batch of ours: a request asks for at most 256."""


@dataclass(kw_only=True)
class Deps:
    """What the handlers work with. `knowledge` is read when the first batch comes, and belongs to `curate_batch`."""

    runtime: Runtime
    settings: CuratorSection
    run_code: CodeRunner
    metrics: Metrics
    knowledge: Knowledge | None = None
    documents_handled: int = 0
    """Since this process started."""


async def accept_document(data: bytes, deps: Deps) -> Sequence[Event]:
    """Check, normalise and store one published document. Raises Rejected with a reason that names the field."""
    runtime = deps.runtime
    document = await asyncio.to_thread(
        document_from, data, domain=runtime.domain, held_out_fraction=deps.settings.held_out_fraction
    )
    key = keys.document_key(runtime.domain, document.document_id)
    if not await asyncio.to_thread(runtime.blobs.create, key, canonical_json(document)):
        # The same text again, perhaps under another name: the first publication counts, and its event is repeated.
        document = Document.model_validate_json(await asyncio.to_thread(runtime.blobs.get, key))
    deps.documents_handled += 1
    if deps.knowledge is None:  # later, the status is about batches
        await runtime.status("accepting", detail="storing documents", done=deps.documents_handled, unit="documents")
    return [
        DocumentAccepted(
            domain=document.domain,
            document_id=document.document_id,
            key=key,
            kind=document.kind,
            title=document.title,
            group=document.group,
            source=document.source,
            split=document.split,
            chars=len(document.text),
            chunks=len(chunk(document, deps.settings.chunk_chars_max)),
        )
    ]


async def pass_over_voided(event: GenerationVoided, _: Deps) -> None:
    """A request that no batch will come from: nothing to curate."""
    log.info("request %s of generator version %d is void: %s", event.request_id, event.generator_version, event.reason)


async def curate_batch(event: BatchGenerated, deps: Deps) -> Sequence[Event]:
    """Make one shard of one batch, or repeat the event of the shard that exists already."""
    runtime = deps.runtime
    prefix = keys.shard_prefix(runtime.domain, event.batch_id)
    committed = await asyncio.to_thread(manifests.find, runtime.blobs, prefix)
    if committed is None:
        manifest, samples, malformed = await asyncio.to_thread(_read_batch, deps, event)
        knowledge = await _up_to_date(deps)
        judged = await _judge(deps, knowledge, event, samples, malformed)
        shard = await asyncio.to_thread(_build, deps, knowledge, event, judged)
        await _hold_if_needed(deps, knowledge, event, shard)
        committed = await asyncio.to_thread(
            commit_shard,
            runtime.blobs,
            shard,
            domain=runtime.domain,
            batch_id=event.batch_id,
            about_batch=_about(event, manifest),
        )
        if committed.won:
            _tell(deps, event, _curated(committed))
    curated = _curated(committed)
    await runtime.status(
        "idle",
        detail=f"shard of batch {event.sequence} committed",
        candidates=curated.candidates,
        accepted=curated.accepted,
        tokens=curated.tokens,
        real_ratio=committed.manifest.details["real_ratio"],
        dropped=dict(curated.dropped),
        **_progress_figures(deps),
    )
    return [curated]


def _tell(deps: Deps, event: BatchGenerated, shard: ShardCurated) -> None:
    """Count and log a shard that this process made."""
    deps.metrics.count(shard)
    log.info(
        "batch %d of generator version %d: %d of %d samples accepted; %d tokens, %.1f %% real",
        event.sequence,
        shard.generator_version,
        shard.accepted,
        shard.candidates,
        shard.tokens,
        100 * shard.real_tokens / max(1, shard.tokens),
        extra={"dropped": dict(shard.dropped)},
    )


def _progress_figures(deps: Deps) -> Mapping[str, Any]:
    """Return how far the run is and how many uses of real samples are left, as of the last shard read."""
    if deps.knowledge is None:
        return {}
    corpus, history = deps.knowledge.corpus, deps.knowledge.history
    uses_left = sum(max(0, deps.settings.real_repeats_max - history.real_uses[key]) for key in corpus.real)
    return {
        "shards_before": len(history),
        "documents": len(corpus),
        "real_samples": len(corpus.real),
        "real_uses_left": uses_left,
    }


def _read_batch(deps: Deps, event: BatchGenerated) -> tuple[Manifest, list[Sample], list[Rejection]]:
    """Return the batch's samples, its malformed lines as rejections. Raises Rejected when it is not whole."""
    try:
        manifest = manifests.read(deps.runtime.blobs, event.manifest_key, sha256=event.manifest_sha256).manifest
        lines = list(read_json_lines(manifests.download_bytes(deps.runtime.blobs, manifest.file(BATCH_FILE))))
    except (IntegrityError, NotFound, KeyError, ValueError) as error:
        raise Rejected(f"batch {event.batch_id} cannot be read: {error}") from error
    if len(lines) > SAMPLES_MAX:
        raise Rejected(f"batch {event.batch_id} has {len(lines)} samples, the limit is {SAMPLES_MAX}")
    samples: dict[str, Sample] = {}
    malformed: list[Rejection] = []
    for line in lines:
        try:
            sample = Sample.model_validate_json(line)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            where = ".".join(map(str, problem["loc"])) or "line"
            malformed.append(Rejection({"line": line, "problem": f"{where}: {problem['msg']}"}, "schema", "malformed"))
            continue
        if sample.sample_id in samples:
            malformed.append(Rejection(sample, "schema", "repeated_id"))
        else:
            samples[sample.sample_id] = sample
    return manifest, list(samples.values()), malformed


async def _up_to_date(deps: Deps) -> Knowledge:
    """Return what the curator knows, with every document and shard published until now. Raises Retry to wait."""
    runtime = deps.runtime
    if deps.knowledge is None:
        try:
            deps.knowledge = await open_knowledge(runtime.blobs, domain=runtime.domain, settings=deps.settings)
        except Retry as wait:
            await runtime.status("waiting", detail=str(wait))
            raise

    async def progress(done: int, total: int, unit: str) -> None:
        await runtime.status("reading", detail=f"reading {unit}", done=done, total=total, unit=unit)

    try:
        await catch_up(deps.knowledge, bus=runtime.bus, blobs=runtime.blobs, domain=runtime.domain, progress=progress)
    except (IntegrityError, NotFound) as error:
        # No fault of this batch: without the earlier shards duplicates and repeats cannot be counted. Wait for help.
        reason = f"an earlier shard cannot be read, so nothing can be compared with it: {error}; restore the object"
        await runtime.status("blocked", detail=reason)
        raise Retry(reason, delay_s=BLOCKED_S, counts=False) from error
    return deps.knowledge


async def _judge(
    deps: Deps, knowledge: Knowledge, event: BatchGenerated, samples: Sequence[Sample], malformed: Sequence[Rejection]
) -> Judged:
    """Run the filters in a thread, and publish how far they are."""
    loop = asyncio.get_running_loop()

    def progress(done: int) -> None:
        status = deps.runtime.status(
            "curating", detail=f"batch {event.sequence}", done=done, total=len(samples), unit="samples"
        )
        asyncio.run_coroutine_threadsafe(status, loop)

    def work() -> Judged:
        context = Context(
            settings=deps.settings,
            history=knowledge.history,
            corpus=knowledge.corpus,
            forbidden=knowledge.forbidden,
            run_code=deps.run_code,
            batch=candidates_of(samples, knowledge.corpus),
        )
        return judge(context, progress=progress)

    judged = await asyncio.to_thread(work)
    return Judged(accepted=judged.accepted, rejected=(*malformed, *judged.rejected))


def _build(deps: Deps, knowledge: Knowledge, event: BatchGenerated, judged: Judged) -> Shard:
    return build_shard(
        judged,
        batch_id=event.batch_id,
        corpus=knowledge.corpus,
        history=knowledge.history,
        tokens=knowledge.tokens,
        real_ratio=deps.settings.real_ratio,
        real_repeats_max=deps.settings.real_repeats_max,
    )


async def _hold_if_needed(deps: Deps, knowledge: Knowledge, event: BatchGenerated, shard: Shard) -> None:
    """Wait, saying so, rather than oversample real data or break the ratio. Raises Retry."""
    if not shard.hold:
        return
    used, available = sum(knowledge.history.real_uses.values()), len(knowledge.corpus.real)
    reason = (
        f"batch {event.sequence} waits for real data: all {available} real samples were used "
        f"{deps.settings.real_repeats_max} times ({used} uses); publish documents, or raise curator.real_repeats_max"
        if available
        else f"batch {event.sequence} waits for real data: there is no training document yet; publish documents"
    )
    await deps.runtime.status("holding", detail=reason, real_samples=available, real_uses=used)
    raise Retry(reason, delay_s=HOLD_S, counts=False)


def _about(event: BatchGenerated, manifest: Manifest) -> Mapping[str, Any]:
    return {
        "batch_id": event.batch_id,
        "batch_sequence": event.sequence,
        "batch_manifest_key": event.manifest_key,
        "batch_manifest_sha256": event.manifest_sha256,
        "generator_version": manifest.details.get("generator_version", event.generator_version),
    }


def _curated(committed: manifests.Committed) -> ShardCurated:
    """Return the event of a committed shard, from its manifest alone: the same at every redelivery."""
    manifest, details = committed.manifest, committed.manifest.details
    return ShardCurated(
        domain=manifest.domain,
        shard_id=manifest.work_id,
        batch_id=details["batch_id"],
        generator_version=details["generator_version"],
        manifest_key=committed.key,
        manifest_sha256=committed.sha256,
        samples=details["accepted"] + details["repeats"]["unique"],
        tokens=details["tokens"],
        real_tokens=details["real_tokens"],
        accepted=details["accepted"],
        candidates=details["candidates"],
        dropped=details["dropped"],
    )


def subscriptions(settings: CuratorSection) -> tuple[Subscription[Deps], ...]:
    """Return what the curator consumes.

    Batches one at a time over all instances: a shard depends on those before it.
    """
    return (
        Subscription(
            channel="documents",
            durable="curator-documents",
            handlers={},
            raw=accept_document,
            max_in_flight=settings.documents_in_flight_max,
        ),
        Subscription(
            channel="batches",
            durable="curator-batches",
            handlers={BatchGenerated: curate_batch, GenerationVoided: pass_over_voided},
            max_in_flight=1,
        ),
    )
