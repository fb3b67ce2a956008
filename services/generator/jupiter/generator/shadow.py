"""The shadow batch: a candidate repeats, beside the version that serves, a batch of the incumbent (DESIGN §8).

Owns: lending it this generator for one batch, and the commit under its evaluation. Does not know: how the two batches
compare (the curator judges), nor why it was asked. Whether the incumbent is still current is the asker's concern: the
answer says which batch was repeated.

The candidate never serves: it is not among `Serving`, no link points to it, and its batch is announced as a shadow
only, so that nothing of it is curated into a shard. It has no version number yet; its samples and its batch name none
(`generator_version` None), and the manifest names the checkpoint that regenerates them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from jupiter import keys, manifests
from jupiter.compute import Turns, compute
from jupiter.errors import IntegrityError, NotFound, Rejected, Retry
from jupiter.events import Event, GenerationRequested, ShadowFailed, ShadowGenerated, ShadowRequested
from jupiter.generator.batches import Job, Made, details_of, make_samples, plan, read_documents, upload
from jupiter.generator.engines import Completion
from jupiter.generator.generating import generate
from jupiter.generator.progress import Counts, published
from jupiter.manifests import Committed
from jupiter.modeling import AttestationError, NoRoom, UnfitModel
from jupiter.records import digest_of

if TYPE_CHECKING:
    from jupiter.generator.handlers import Deps

__all__ = ["shadow_requested"]

log = logging.getLogger(__name__)

NO_ROOM_PAUSE_S = 30.0
"""Before a candidate is tried again for which the memory was short, here or elsewhere."""
REASON_CHARS_MAX = 2_000


class _Unfit(Exception):
    """The candidate cannot answer, here or anywhere; the text is the reason."""


async def shadow_requested(request: ShadowRequested, deps: Deps) -> Sequence[Event]:
    """Make the candidate's batch, or repeat the event of the one that exists, or say why there will be none."""
    runtime = deps.runtime
    prefix = keys.shadow_batch_prefix(runtime.domain, request.evaluation_id)
    committed = await asyncio.to_thread(manifests.find, runtime.blobs, prefix)
    about = f"shadow batch of evaluation {request.evaluation_id[:12]}"
    if committed is None:
        wanted = await asyncio.to_thread(_what_the_incumbent_was_asked, request, deps)
        try:
            committed = await _make(request, wanted, deps, prefix, about)
        except _Unfit as error:
            log.warning("%s: the candidate cannot generate: %s", about, error)
            await runtime.status("idle", detail=f"{about}: the candidate cannot generate", **_figures(deps))
            return [_failed(request, deps, str(error))]
    await runtime.status("idle", detail=f"{about} committed", **_figures(deps))
    return [_generated(committed)]


def _what_the_incumbent_was_asked(request: ShadowRequested, deps: Deps) -> GenerationRequested:
    """Return the request to repeat, under an id of its own. Raises Rejected: without it nothing can be compared."""
    try:
        read = manifests.read(deps.runtime.blobs, request.batch_manifest_key, sha256=request.batch_manifest_sha256)
        details = read.manifest.details
        asked = GenerationRequested.model_validate(
            {
                "domain": request.domain,
                "request_id": digest_of("shadow", request.evaluation_id, request.batch_id),
                "generator_version": details["generator_version"],
                "sequence": details["sequence"],
                "items": details["items"],
                "sampling": details["sampling"],
            }
        )
    except (IntegrityError, NotFound, KeyError, ValidationError) as error:
        raise Rejected(f"the incumbent's batch {request.batch_id} cannot be repeated: {error}") from error
    engine = deps.runtime.config.generator.engine
    if details.get("engine") != engine:
        log.warning(
            "batch %s was made by engine %s, its shadow is by %s", request.batch_id, details.get("engine"), engine
        )
    return asked


async def _make(
    request: ShadowRequested, wanted: GenerationRequested, deps: Deps, prefix: str, about: str
) -> Committed:
    """Fetch the candidate, generate with it, commit. Raises _Unfit."""
    runtime = deps.runtime
    documents = await asyncio.to_thread(read_documents, runtime.blobs, wanted)
    jobs, unusable = plan(wanted, documents, chunk_chars_max=runtime.config.curator.chunk_chars_max)
    counts = Counts(len(jobs))
    async with published(runtime, counts, detail=about, version=request.generator_version):
        completions, seconds = await _by_the_candidate(request, wanted, jobs, counts, deps)
    made = make_samples(wanted, jobs, completions, unusable)
    log.info("%s: %d samples, %d unusable, in %.1f s", about, len(made.samples), len(made.unusable), seconds)
    return await asyncio.to_thread(_commit, request, wanted, made, deps, prefix, seconds)


async def _by_the_candidate(
    request: ShadowRequested, wanted: GenerationRequested, jobs: Sequence[Job], counts: Counts, deps: Deps
) -> tuple[list[Completion], float]:
    """Generate with the candidate, in one turn of computing. Raises _Unfit, or Retry where memory is short."""
    try:
        return await compute(deps.lease, "generating", lambda turns: _run(request, wanted, jobs, counts, deps, turns))
    except NoRoom as error:
        raise Retry(f"the candidate waits for memory: {error}", delay_s=NO_ROOM_PAUSE_S) from error
    except (IntegrityError, NotFound) as error:
        raise _Unfit(f"the store does not hold it: {error}") from error


def _run(
    request: ShadowRequested,
    wanted: GenerationRequested,
    jobs: Sequence[Job],
    counts: Counts,
    deps: Deps,
    turns: Turns,
) -> tuple[list[Completion], float]:
    """Have the candidate on this disk and in this memory for as long as it generates; runs in the worker thread.

    All of it in one thread, so that a stop never takes away files or weights that are still being used.
    """
    engine, blobs = deps.engine, deps.runtime.blobs
    checkpoint = manifests.read(blobs, request.checkpoint_manifest_key, sha256=request.checkpoint_manifest_sha256)
    with deps.reloader.versions.borrow(blobs, checkpoint) as directory:
        try:
            turns.between()
            handle = engine.load(directory)
            try:
                turns.between()
                engine.attest(handle, directory, tolerance=deps.runtime.config.generator.attestation_tolerance)
                return generate(engine, handle, jobs, sampling=wanted.sampling, counts=counts, turns=turns)
            finally:
                engine.release(handle)
        except NoRoom:
            raise
        except (AttestationError, Rejected, UnfitModel) as error:
            # Rejected: a prompt is too long for it that was none too long for the incumbent.
            raise _Unfit(f"{type(error).__name__}: {error}".replace(str(directory), "the checkpoint")) from error


def _commit(
    request: ShadowRequested, wanted: GenerationRequested, made: Made, deps: Deps, prefix: str, seconds: float
) -> Committed:
    """Store the batch as any other, but under its evaluation, and without a version that it does not have."""
    blobs = deps.runtime.blobs
    samples = tuple(sample.model_copy(update={"generator_version": None}) for sample in made.samples)
    details = details_of(wanted, made, deps.runtime.config.generator, seconds=seconds)
    return manifests.commit(
        blobs,
        prefix=prefix,
        kind="batch",
        domain=request.domain,
        work_id=request.evaluation_id,
        files=upload(blobs, prefix, replace(made, samples=samples)),
        details={
            **details,
            "generator_version": None,
            "evaluation_id": request.evaluation_id,
            "checkpoint_id": request.checkpoint_id,
            "checkpoint_manifest_key": request.checkpoint_manifest_key,
            "checkpoint_manifest_sha256": request.checkpoint_manifest_sha256,
            "incumbent_version": request.generator_version,
            "incumbent_batch_id": request.batch_id,
            "incumbent_batch_manifest_key": request.batch_manifest_key,
            "incumbent_batch_manifest_sha256": request.batch_manifest_sha256,
        },
    )


def _generated(committed: Committed) -> ShadowGenerated:
    """Return the event of a committed shadow batch: whoever committed it, the same."""
    details = committed.manifest.details
    return ShadowGenerated(
        domain=committed.manifest.domain,
        evaluation_id=details["evaluation_id"],
        batch_id=details["incumbent_batch_id"],
        batch_manifest_key=details["incumbent_batch_manifest_key"],
        batch_manifest_sha256=details["incumbent_batch_manifest_sha256"],
        manifest_key=committed.key,
        manifest_sha256=committed.sha256,
    )


def _failed(request: ShadowRequested, deps: Deps, reason: str) -> ShadowFailed:
    return ShadowFailed(
        domain=request.domain,
        evaluation_id=request.evaluation_id,
        instance=deps.runtime.instance,
        reason=reason[:REASON_CHARS_MAX],
    )


def _figures(deps: Deps) -> dict[str, Any]:
    """Say which version serves meanwhile."""
    return {"version": deps.serving.current.version} if deps.serving.current else {}
