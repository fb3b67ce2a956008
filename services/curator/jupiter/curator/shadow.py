"""The shadow batch judged: what a candidate made of the incumbent's requests, beside what the incumbent made of them.

Owns: judging both by the same filters, against the same documents, benchmark and earlier shards, and the figures of
either side. Does not know: how far a candidate may fall behind (the controller's gate decides).

Each side is judged as if it were alone and next in line. The incumbent's batch became a shard long ago, which would
make every sample of it a duplicate of itself, so that one shard is left out of the history for both. Nothing is mixed,
and nothing becomes a shard.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from jupiter import keys, manifests
from jupiter.curator.batch import Batch, read_batch
from jupiter.curator.candidate import Candidate, digest_of_text
from jupiter.curator.deps import Deps, context_of, still_whole, up_to_date
from jupiter.curator.diversity import measure
from jupiter.curator.filters import Context
from jupiter.curator.filters.grounding import grounded_share
from jupiter.curator.knowledge import Knowledge
from jupiter.curator.pipeline import Judged, judge
from jupiter.errors import Rejected
from jupiter.events import Event, ShadowGenerated, ShadowJudged
from jupiter.manifests import Committed
from jupiter.overlap.signatures import NearDuplicateIndex
from jupiter.records import sample_id_of
from jupiter.reports import Shadow, ShadowSide
from jupiter.sample_files import write_json_lines

__all__ = ["judge_shadow"]

log = logging.getLogger(__name__)

REAL = "real."
"""Before the names of the real data's own figures."""


@dataclass(frozen=True, kw_only=True)
class _Sides:
    """Both batches as they were committed."""

    candidate: Batch
    incumbent: Batch

    @property
    def samples(self) -> int:
        return len(self.candidate.samples) + len(self.incumbent.samples)


@dataclass(frozen=True, kw_only=True)
class _Judged:
    """One side: its figures, and the lines that show what they are made of."""

    side: ShadowSide
    judged: Judged


async def judge_shadow(event: ShadowGenerated, deps: Deps) -> Sequence[Event]:
    """Judge both batches once, or repeat the event of the judgement that exists already."""
    runtime = deps.runtime
    prefix = keys.shadow_judgement_prefix(runtime.domain, event.evaluation_id)
    committed = await asyncio.to_thread(manifests.find, runtime.blobs, prefix)
    if committed is None:
        sides = await asyncio.to_thread(_read, event, deps)
        async with deps.knowing:
            knowledge = await up_to_date(deps)
            candidate, incumbent = await _judge_both(event, sides, knowledge, deps)
            await still_whole(deps, knowledge)
        committed = await asyncio.to_thread(_commit, event, sides, candidate, incumbent, deps, prefix)
    judged = _event(committed)
    detail = f"shadow batch of evaluation {event.evaluation_id[:12]} judged"
    log.info("%s: %d of %d, incumbent %d", detail, judged.candidate_accepted, judged.items, judged.incumbent_accepted)
    await runtime.status("idle", detail=detail)
    return [judged]


def _read(event: ShadowGenerated, deps: Deps) -> _Sides:
    """Return both batches. Raises Rejected unless both are whole and answer the same items."""
    blobs = deps.runtime.blobs
    candidate = read_batch(
        blobs,
        batch_id=f"of the candidate of evaluation {event.evaluation_id}",
        manifest_key=event.manifest_key,
        manifest_sha256=event.manifest_sha256,
    )
    incumbent = read_batch(
        blobs,
        batch_id=event.batch_id,
        manifest_key=event.batch_manifest_key,
        manifest_sha256=event.batch_manifest_sha256,
    )
    for batch, name, expected in (
        (candidate, "evaluation_id", event.evaluation_id),
        (candidate, "incumbent_batch_id", event.batch_id),
        (incumbent, "request_id", event.batch_id),
    ):
        seen = batch.manifest.details.get(name)
        if seen != expected:
            raise Rejected(f"batch {batch.manifest.work_id} has {name} {seen}, its event says {expected}")
    items = [batch.manifest.details.get("items") for batch in (candidate, incumbent)]
    if not items[0] or items[0] != items[1]:
        raise Rejected(f"the shadow of batch {event.batch_id} does not answer the same items: nothing can be compared")
    for batch in (candidate, incumbent):
        strangers = {sample.sample_id for sample in batch.samples} - set(_ids(batch))
        if strangers:
            raise Rejected(f"batch {batch.manifest.work_id} has samples of no item, e.g. {min(strangers)}")
    return _Sides(candidate=candidate, incumbent=incumbent)


def _ids(batch: Batch) -> list[str]:
    """Return the id of each item's sample, in the order of the request."""
    details = batch.manifest.details
    return [sample_id_of(details["request_id"], index) for index in range(len(details["items"]))]


async def _judge_both(
    event: ShadowGenerated, sides: _Sides, knowledge: Knowledge, deps: Deps
) -> tuple[_Judged, _Judged]:
    """Judge one side, then the other, in a thread: neither sees the other, so the order does not matter."""
    loop = asyncio.get_running_loop()
    history = knowledge.history.without(event.batch_id)
    done = 0

    def progress(_: int) -> None:
        nonlocal done
        done += 1
        detail = f"shadow batch of evaluation {event.evaluation_id[:12]}"
        status = deps.runtime.status("judging", detail=detail, done=done, total=sides.samples, unit="samples")
        asyncio.run_coroutine_threadsafe(status, loop)

    def work(batch: Batch, sha256: str) -> _Judged:
        context = context_of(deps, knowledge, batch.samples, history=history)
        return _judge_side(context, batch, sha256=sha256, seed=event.evaluation_id, progress=progress)

    return (
        await asyncio.to_thread(work, sides.candidate, event.manifest_sha256),
        await asyncio.to_thread(work, sides.incumbent, event.batch_manifest_sha256),
    )


def _judge_side(context: Context, batch: Batch, *, sha256: str, seed: str, progress: Callable[[int], None]) -> _Judged:
    judged = judge(context, progress=progress)
    judged = replace(judged, rejected=(*batch.unusable, *batch.malformed, *judged.rejected))
    kept = {accepted.candidate.sample.sample_id for accepted in judged.accepted}
    ids = _ids(batch)
    side = ShadowSide(
        manifest_sha256=sha256,
        items=len(ids),
        samples=len(batch.samples) + len(batch.malformed),
        accepted=tuple(sample_id in kept for sample_id in ids),
        dropped=judged.dropped,
        grounding=_grounding(context.batch),
        duplicates=_duplicates(context),
        diversity=measure([one.candidate for one in judged.accepted], context.corpus, seed=seed).flat(),
    )
    return _Judged(side=side, judged=judged)


def _grounding(made: Sequence[Candidate]) -> float:
    """Return the mean grounding of all prose that was made; code is verified by running it. 0 where there is none."""
    shares = [grounded_share(candidate) for candidate in made if not candidate.is_code]
    return round(fmean(shares), 4) if shares else 0.0


def _duplicates(context: Context) -> float:
    """Return the share of all samples made that say again what another of the batch, a shard or a document says.

    Not read off the filters' reasons: a filter that judges earlier hides the duplicates that it drops. In the batch, a
    claim made before is a duplicate whatever question it answers: that is how one memorised answer shows.
    """
    here = NearDuplicateIndex(threshold=context.settings.near_duplicate_threshold)
    seen: set[str] = set()
    found = 0
    for candidate in context.batch:
        claim = digest_of_text(candidate.claim)
        found += (
            bool(seen & {claim, candidate.text_digest})
            or any(known.has_text(candidate.text_digest) for known in (context.corpus, context.history))
            or any(index.find(candidate.signatures) for index in (here, context.corpus.index, context.history.index))
        )
        seen |= {claim, candidate.text_digest}
        here.add(candidate.sample.sample_id, candidate.signature)
    return round(found / len(context.batch), 4) if context.batch else 0.0


def _commit(
    event: ShadowGenerated, sides: _Sides, candidate: _Judged, incumbent: _Judged, deps: Deps, prefix: str
) -> Committed:
    """Store what both sides' figures are made of, and the figures as the manifest's details."""
    blobs = deps.runtime.blobs
    shadow = Shadow(
        evaluation_id=event.evaluation_id,
        batch_id=event.batch_id,
        clusters=tuple(item["document_id"] for item in sides.incumbent.manifest.details["items"]),
        candidate=candidate.side,
        incumbent=incumbent.side,
        real={
            name.removeprefix(REAL): figure
            for name, figure in incumbent.side.diversity.items()
            if name.startswith(REAL)
        },
    )
    files: dict[str, list[Mapping[str, Any]]] = {}
    for name, side in (("candidate", candidate), ("incumbent", incumbent)):
        files[f"{name}_accepted.jsonl.zst"] = [
            {"score": one.score, "sample": one.candidate.sample.model_dump(mode="json")} for one in side.judged.accepted
        ]
        files[f"{name}_rejected.jsonl.zst"] = [rejection.record() for rejection in side.judged.rejected]
    return manifests.commit(
        blobs,
        prefix=prefix,
        kind="evaluation",
        domain=event.domain,
        work_id=event.evaluation_id,
        files=tuple(
            manifests.upload_bytes(blobs, prefix=prefix, name=name, data=write_json_lines(lines))
            for name, lines in files.items()
        ),
        details=shadow.model_dump(mode="json"),
    )


def _event(committed: Committed) -> ShadowJudged:
    """Return the event of a committed judgement, from its manifest alone: the same at every redelivery."""
    shadow = Shadow.model_validate(committed.manifest.details)
    return ShadowJudged(
        domain=committed.manifest.domain,
        evaluation_id=shadow.evaluation_id,
        manifest_key=committed.key,
        manifest_sha256=committed.sha256,
        candidate_accepted=sum(shadow.candidate.accepted),
        incumbent_accepted=sum(shadow.incumbent.accepted),
        items=len(shadow.clusters),
    )
