"""What the curator does with a published document and with a generated batch.

Owns: the two handlers and their order of steps, and the table of all handlers (`shadow` has a candidate's batch).
Does not know: ack and nak (`jupiter.deliveries`), any filter or ratio.
Both may be called again for the same input at any time: a document's key and a shard's manifest are created once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from jupiter import keys, manifests
from jupiter.chunks import chunk
from jupiter.config.sections import CuratorSection
from jupiter.curator.batch import Batch, read_batch
from jupiter.curator.deps import Deps, context_of, still_whole, up_to_date
from jupiter.curator.intake import document_from
from jupiter.curator.knowledge import Knowledge
from jupiter.curator.pipeline import Judged, judge
from jupiter.curator.shadow import judge_shadow
from jupiter.curator.shard import NOTHING_FITS_REASON, Shard, build_shard, commit_shard
from jupiter.errors import Retry
from jupiter.events import BatchGenerated, DocumentAccepted, Event, GenerationVoided, ShadowGenerated, ShardCurated
from jupiter.records import Document, Manifest, canonical_json
from jupiter.service import Subscription

__all__ = ["Deps", "accept_document", "curate_batch", "pass_over_voided", "subscriptions"]

log = logging.getLogger(__name__)

HOLD_S = 5.0
"""Before a batch that waits for real data is looked at again."""


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
    """Make one shard of one batch, or repeat the event of the shard that exists already. None of a withdrawn one."""
    runtime = deps.runtime
    prefix = keys.shard_prefix(runtime.domain, event.batch_id)
    committed = await asyncio.to_thread(manifests.find, runtime.blobs, prefix)
    if committed is None:
        batch = await asyncio.to_thread(
            read_batch,
            runtime.blobs,
            batch_id=event.batch_id,
            manifest_key=event.manifest_key,
            manifest_sha256=event.manifest_sha256,
        )
        async with deps.knowing:
            knowledge = await up_to_date(deps)
            if knowledge.withdrawn.has_batch(version=event.generator_version, sequence=event.sequence):
                return [await _taken_back(event, deps)]
            judged = await _judge(deps, knowledge, event, batch)
            shard = await asyncio.to_thread(_build, deps, knowledge, event, judged)
            await still_whole(deps, knowledge)
            await _hold_if_needed(deps, knowledge, event, shard)
        committed = await asyncio.to_thread(
            commit_shard,
            runtime.blobs,
            shard,
            domain=runtime.domain,
            batch_id=event.batch_id,
            about_batch=_about(event, batch.manifest),
        )
        if committed.won:
            _tell(deps, event, _curated(committed), committed.manifest.details)
    curated = _curated(committed)
    await runtime.status(
        "idle",
        detail=f"shard of batch {event.sequence} committed",
        candidates=curated.candidates,
        accepted=curated.accepted,
        tokens=curated.tokens,
        real_ratio=committed.manifest.details["real_ratio"],
        real_ratio_target=committed.manifest.details.get("real_ratio_target", deps.settings.real_ratio),
        alarm=committed.manifest.details.get("alarm"),
        dropped=dict(curated.dropped),
        **_progress_figures(deps),
    )
    return [curated]


async def _taken_back(event: BatchGenerated, deps: Deps) -> GenerationVoided:
    """Say what became of a batch that a rollback withdrew before a shard was made of it: it must not just vanish."""
    version = event.generator_version
    await deps.runtime.status("idle", detail=f"batch {event.sequence} is withdrawn with version {version}")
    return GenerationVoided(
        domain=event.domain,
        request_id=event.batch_id,
        generator_version=version,
        reason=f"withdrawn: version {version} was rolled back with quarantine before a shard was made of this batch",
    )


def _tell(deps: Deps, event: BatchGenerated, shard: ShardCurated, details: Mapping[str, Any]) -> None:
    """Count and log a shard that this process made."""
    deps.metrics.count(shard, real_ratio_target=details["real_ratio_target"], alarm=details["alarm"] is not None)
    if details["alarm"] is not None:
        log.warning(
            "batch %d was mixed with a target of %.0f %% real: the diversity alarm of shard %s is open",
            event.sequence,
            100 * details["real_ratio_target"],
            details["alarm"][:12],
        )
    if shard.contaminated:
        log.warning(
            "batch %d: %d samples of the shard hold texts of the benchmark, for curator.decontaminate is off: no "
            "checkpoint that is trained on them can be promoted",
            event.sequence,
            shard.contaminated,
        )
    if left_out := shard.dropped.get(NOTHING_FITS_REASON):
        log.warning(
            "batch %d: all its %d accepted samples are left out (%s): no choice of the real samples that may still be "
            "used is 30-40 %% beside them, for each is too long or all are too few; publish shorter documents and "
            "more, or ask for more samples at a time (controller.samples_per_request)",
            event.sequence,
            left_out,
            NOTHING_FITS_REASON,
        )
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


async def _judge(deps: Deps, knowledge: Knowledge, event: BatchGenerated, batch: Batch) -> Judged:
    """Run the filters in a thread, and publish how far they are. What gave no sample counts as refused."""
    loop = asyncio.get_running_loop()

    def progress(done: int) -> None:
        status = deps.runtime.status(
            "curating", detail=f"batch {event.sequence}", done=done, total=len(batch.samples), unit="samples"
        )
        asyncio.run_coroutine_threadsafe(status, loop)

    def work() -> Judged:
        return judge(context_of(deps, knowledge, batch.samples), progress=progress)

    judged = await asyncio.to_thread(work)
    return replace(judged, rejected=(*batch.unusable, *batch.malformed, *judged.rejected))


def _build(deps: Deps, knowledge: Knowledge, event: BatchGenerated, judged: Judged) -> Shard:
    in_alarm = deps.runtime.config.diversity.alarm_real_ratio
    target = knowledge.alarms.real_ratio(deps.settings.real_ratio, in_alarm=in_alarm)
    shard = build_shard(
        judged,
        batch_id=event.batch_id,
        corpus=knowledge.corpus,
        history=knowledge.history,
        tokens=knowledge.tokens,
        real_ratio=target,
        real_repeats_max=deps.settings.real_repeats_max,
        forbidden=knowledge.forbidden,
    )
    alarm = knowledge.alarms.open
    asked = {
        "real_ratio_target": target,
        "alarm": None if alarm is None else alarm.shard_id,
        "alarms_sequence": knowledge.alarms.sequence,
    }
    return replace(shard, details={**shard.details, **asked})


async def _hold_if_needed(deps: Deps, knowledge: Knowledge, event: BatchGenerated, shard: Shard) -> None:
    """Wait, saying so, rather than oversample real data or break the ratio. Raises Retry."""
    if not shard.hold:
        return
    used, available = sum(knowledge.history.real_uses.values()), len(knowledge.corpus.real)
    reason = (
        f"batch {event.sequence} waits for real data: too little is left of {available} real samples, each used "
        f"{deps.settings.real_repeats_max} times at most ({used} uses); publish documents, or raise "
        "curator.real_repeats_max"
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
        batch_sequence=details["batch_sequence"],
        diversity=details.get("diversity_figures", {}),
        contaminated=_contaminated(details),
    )


def _contaminated(details: Mapping[str, Any]) -> int | None:
    counted = details.get("contamination")
    return counted["synthetic"] + counted["real"] if counted else None


def subscriptions(settings: CuratorSection) -> tuple[Subscription[Deps], ...]:
    """Return what the curator consumes.

    Batches one at a time over all instances: a shard depends on those before it. The next one is delivered only when
    the last one's shard is committed and told, so caps, repeats and novelty are counted over the run by whichever
    curator takes it; the others stand by for batches, and store documents and judge shadow batches meanwhile.
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
        Subscription(
            channel="shadows",
            durable="curator-shadows",
            handlers={ShadowGenerated: judge_shadow},
            max_in_flight=1,
        ),
    )
