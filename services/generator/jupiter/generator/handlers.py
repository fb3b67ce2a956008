"""What the generator does with a request.

Owns: void, wait or generate, and the batch's commit. Does not know: reloading (`reloading`), decoding (`engines`),
what a candidate is lent this generator for (`shadow`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from jupiter import keys, ledger, manifests
from jupiter.compute import ComputeLease, compute
from jupiter.errors import Retry
from jupiter.events import BatchGenerated, Event, GenerationRequested, GenerationVoided, ShadowRequested
from jupiter.generator.batches import Made, details_of, make_samples, plan, read_documents, upload
from jupiter.generator.engines import Engine
from jupiter.generator.generating import generate
from jupiter.generator.progress import Counts, published
from jupiter.generator.reloading import Reloader
from jupiter.generator.serving import Served, Serving
from jupiter.generator.shadow import shadow_requested
from jupiter.manifests import Committed
from jupiter.modeling import AttestationError, NoRoom, UnfitModel
from jupiter.service import Runtime, Subscription

__all__ = ["Deps", "generation_requested", "subscriptions"]

log = logging.getLogger(__name__)

NOT_LOADED_PAUSE_S = 0.5
"""Before a request for a version that is being loaded is looked at again."""

NO_ROOM_PAUSE_S = 30.0
"""Before an engine is started again that died, and whose memory others have taken."""

INSTANCES_MAX = 64
"""Generators that may work on one domain's requests at a time."""


@dataclass(kw_only=True)
class Deps:
    """What the handlers work with."""

    runtime: Runtime
    engine: Engine
    lease: ComputeLease
    serving: Serving
    reloader: Reloader


async def generation_requested(request: GenerationRequested, deps: Deps) -> Sequence[Event]:
    """Make the batch, or repeat the event of the one that exists, or say that none will come."""
    runtime = deps.runtime
    prefix = keys.batch_prefix(runtime.domain, request.request_id)
    committed = await asyncio.to_thread(manifests.find, runtime.blobs, prefix)
    if committed is not None:
        return [_batch_generated(committed)]
    voided = await _void_unless_current(request, deps)
    if voided is not None:
        return [voided]
    served = deps.serving.current
    if served is None or served.version != request.generator_version:
        deps.reloader.look()
        raise Retry(f"version {request.generator_version} is not loaded yet", delay_s=NOT_LOADED_PAUSE_S, counts=False)
    event = _batch_generated(await _by_the_served(request, deps, served, prefix))
    await runtime.status(
        "idle",
        detail=f"batch {event.sequence} committed",
        version=event.generator_version,
        samples=event.samples,
        tokens=event.tokens,
        tokens_per_s=event.tokens / event.seconds if event.seconds else None,
    )
    return [event]


def subscriptions() -> list[Subscription[Deps]]:
    """One request at a time per instance: a batch fills the machine. Several instances work side by side.

    A shadow batch is made by whichever instance is free, one at a time over all of them: it needs a second model in
    memory, and no evaluation comes before the one that waits for it is settled.
    """
    return [
        Subscription(
            channel="generation",
            durable="generator",
            handlers={GenerationRequested: generation_requested},
            max_in_flight=1,
            max_ack_pending=INSTANCES_MAX,
        ),
        Subscription(
            channel="shadows",
            durable="generator-shadows",
            handlers={ShadowRequested: shadow_requested},
            max_in_flight=1,
        ),
    ]


async def _void_unless_current(request: GenerationRequested, deps: Deps) -> GenerationVoided | None:
    """The controller asks only what the ledger's current version can do; a request for another one is of the past."""
    live = ledger.current(await deps.reloader.read_ledger())
    if live is None:
        raise Retry("the ledger is empty: no version is registered yet", counts=False)
    if request.generator_version == live.version:
        return None
    return GenerationVoided(
        domain=request.domain,
        request_id=request.request_id,
        generator_version=request.generator_version,
        reason=f"version {live.version} is current (ledger entry {live.sequence})",
    )


async def _by_the_served(request: GenerationRequested, deps: Deps, served: Served, prefix: str) -> Committed:
    """Make the batch; release what was retired meanwhile, also when it fails.

    Raises Retry where an engine with one set of weights at a time cannot bring these in: the request is not to blame.
    """
    try:
        with deps.serving.hold(served) as to_release:
            return await _make_batch(request, deps, served, prefix)
    except NoRoom as error:
        reason = f"version {served.version} waits for memory: {error}"
        await deps.runtime.status("waiting", detail=reason, version=served.version)
        raise Retry(reason, delay_s=NO_ROOM_PAUSE_S, counts=False) from error
    except (AttestationError, UnfitModel) as error:
        deps.reloader.load_anew(served, error)
        raise Retry(f"version {served.version} is loaded anew", delay_s=NOT_LOADED_PAUSE_S, counts=False) from error
    finally:
        for retired in to_release:
            await asyncio.to_thread(deps.engine.release, retired.handle)


async def _make_batch(request: GenerationRequested, deps: Deps, served: Served, prefix: str) -> Committed:
    runtime = deps.runtime
    documents = await asyncio.to_thread(read_documents, runtime.blobs, request)
    jobs, unusable = plan(request, documents, chunk_chars_max=runtime.config.curator.chunk_chars_max)
    counts = Counts(len(jobs))
    detail = f"batch {request.sequence} by version {served.version}"
    async with published(runtime, counts, detail=detail, version=served.version):
        completions, seconds = await compute(
            deps.lease,
            "generating",
            lambda turns: generate(
                deps.engine, served.handle, jobs, sampling=request.sampling, counts=counts, turns=turns
            ),
        )
    made = make_samples(request, jobs, completions, unusable)
    log.info(
        "%s: %d samples, %d unusable, %d tokens in %.1f s",
        detail,
        len(made.samples),
        len(made.unusable),
        made.tokens,
        seconds,
    )
    return await asyncio.to_thread(_commit, request, deps, made, prefix, seconds)


def _commit(request: GenerationRequested, deps: Deps, made: Made, prefix: str, seconds: float) -> Committed:
    """Store the batch under the commit rule (DESIGN §4); the loser of a race gets the winner's manifest."""
    blobs = deps.runtime.blobs
    return manifests.commit(
        blobs,
        prefix=prefix,
        kind="batch",
        domain=request.domain,
        work_id=request.request_id,
        files=upload(blobs, prefix, made),
        details=details_of(request, made, deps.runtime.config.generator, seconds=seconds),
    )


def _batch_generated(committed: Committed) -> BatchGenerated:
    """Return the event of a committed batch: whoever committed it, the same."""
    details = committed.manifest.details
    return BatchGenerated(
        domain=committed.manifest.domain,
        batch_id=details["request_id"],
        generator_version=details["generator_version"],
        sequence=details["sequence"],
        manifest_key=committed.key,
        manifest_sha256=committed.sha256,
        samples=details["samples"],
        tokens=details["tokens"],
        seconds=details["seconds"],
    )
