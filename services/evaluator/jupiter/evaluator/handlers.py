"""What the evaluator does with a checkpoint: one evaluation against the generator of the day.

Owns: the order of steps, and what each failure means. Does not know: ack and nak (`jupiter.deliveries`), any score.
It may be called again for the same checkpoint at any time: an evaluation's manifest is created once.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TypeVar

from jupiter import manifests
from jupiter.compute import ComputeLease
from jupiter.errors import IntegrityError, NotFound, Rejected, Retry
from jupiter.evaluator.benchmarks import FrozenBenchmark, find_frozen
from jupiter.evaluator.contestants import Contestants
from jupiter.evaluator.examination import Examined, Examiner, Unscored
from jupiter.evaluator.reporting import Match, build_report, commit_report, completed
from jupiter.evaluator.turns import Interrupted, ProgressLine, ReportProgress, Turns
from jupiter.events import CheckpointSaved, Event
from jupiter.ledger import current, read_ledger
from jupiter.manifests import Committed
from jupiter.modeling import UnfitModel
from jupiter.service import Handler, Runtime

__all__ = ["CHECKPOINT_HANDLERS", "Deps", "evaluate_checkpoint"]

log = logging.getLogger(__name__)

T = TypeVar("T")

WAIT_S = 2.0
"""Before a checkpoint that came too early is looked at again."""


@dataclass(kw_only=True)
class Deps:
    """What the handler works with. `frozen` is read once: it never changes."""

    runtime: Runtime
    contestants: Contestants
    examiner: Examiner
    lease: ComputeLease
    frozen: FrozenBenchmark | None = None


async def evaluate_checkpoint(event: CheckpointSaved, deps: Deps) -> Sequence[Event]:
    """Score checkpoint and current generator, commit the report; repeat the event of one that exists already."""
    match = await _match(event, deps)
    blobs = deps.runtime.blobs
    committed = await asyncio.to_thread(manifests.find, blobs, match.prefix)
    if committed is None:
        checkpoint, version = await asyncio.to_thread(_manifests_of, match, deps)
        committed = await _evaluate(match, checkpoint, version, deps)
    done = completed(committed)
    await deps.runtime.status(
        "idle",
        detail=f"step {done.step} scored {done.candidate_score:.3f}, generator v{done.generator_version} "
        f"{done.generator_score:.3f}: difference {done.difference:+.3f} [{done.ci_low:+.3f}, {done.ci_high:+.3f}]",
        evaluation_id=done.evaluation_id,
        difference=done.difference,
    )
    return [done]


async def _match(event: CheckpointSaved, deps: Deps) -> Match:
    """Return what is compared. Raises Retry while there is no benchmark or no generator yet."""
    runtime = deps.runtime
    if deps.frozen is None:
        deps.frozen = await asyncio.to_thread(find_frozen, runtime.blobs, runtime.domain)
    if deps.frozen is None:
        raise Retry("the benchmark is not frozen yet", delay_s=WAIT_S, counts=False)
    entry = current(await asyncio.to_thread(read_ledger, runtime.blobs, runtime.domain))
    if entry is None:
        await runtime.status("waiting", detail="no generator is registered yet")
        raise Retry("no generator is registered yet", delay_s=WAIT_S, counts=False)
    return Match(checkpoint=event, generator=entry, frozen=deps.frozen)


def _manifests_of(match: Match, deps: Deps) -> tuple[Committed, Committed]:
    """Return the manifests of candidate and generator as named. Raises Rejected when the candidate is gone."""
    blobs, event, entry = deps.runtime.blobs, match.checkpoint, match.generator
    with _CandidateTrouble(event):
        checkpoint = manifests.read(blobs, event.manifest_key, sha256=event.manifest_sha256)
    return checkpoint, manifests.read(blobs, entry.manifest_key, sha256=entry.manifest_sha256)


async def _evaluate(match: Match, checkpoint: Committed, version: Committed, deps: Deps) -> Committed:
    runtime, loop = deps.runtime, asyncio.get_running_loop()
    detail = f"step {match.checkpoint.step} against generator v{match.generator.version}"
    await runtime.status("loading", detail=detail)

    def report_progress(*, done: int, total: int, rate_per_s: float | None) -> None:
        status = runtime.status(
            "evaluating", detail=detail, done=done, total=total, unit="items", rate_per_s=rate_per_s
        )
        asyncio.run_coroutine_threadsafe(status, loop)

    def work(interrupted: threading.Event) -> Committed:
        started = time.monotonic()
        candidate, generator = _examine_both(match, checkpoint, version, deps, report_progress, interrupted)
        report = build_report(
            match,
            candidate=candidate,
            generator=generator,
            confidence=runtime.config.self_improvement.confidence,
            wall_s=time.monotonic() - started,
        )
        return commit_report(runtime.blobs, match, report, candidate=candidate, generator=generator)

    try:
        return await _in_thread(work, stop=runtime.stop)
    except Interrupted:
        raise Retry("the evaluator stops; the checkpoint is evaluated later", counts=False) from None
    except Unscored as error:
        raise Retry(f"the evaluation of {detail} is incomplete: {error}", delay_s=WAIT_S) from error


def _examine_both(
    match: Match,
    checkpoint: Committed,
    version: Committed,
    deps: Deps,
    report_progress: ReportProgress,
    interrupted: threading.Event,
) -> tuple[Examined, Examined]:
    """Examine the candidate, then the generator, whose troubles are not the checkpoint's and are tried again."""
    benchmark, about_candidate = match.frozen.benchmark, _CandidateTrouble(match.checkpoint)
    with ExitStack() as stack:
        # Fetched before the lease is taken: others compute meanwhile.
        generator_files = deps.contestants.generator(deps.runtime.blobs, version)
        with about_candidate:
            candidate_files = stack.enter_context(deps.contestants.candidate(deps.runtime.blobs, checkpoint))
        turns = stack.enter_context(Turns(deps.lease, purpose="evaluating", interrupted=interrupted))
        progress = ProgressLine(report_progress, total=2 * deps.examiner.answers(benchmark), between=turns.between)
        with about_candidate:
            candidate = deps.examiner.examine(candidate_files, benchmark, progress)
        return candidate, deps.examiner.examine(generator_files, benchmark, progress)


class _CandidateTrouble:
    """Turns what is wrong with the candidate itself into a rejection: trying again cannot help."""

    def __init__(self, event: CheckpointSaved) -> None:
        self._what = f"checkpoint {event.checkpoint_id[:12]} (run {event.run}, step {event.step})"

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, NotFound):
            raise Rejected(f"{self._what} is no longer stored, it was garbage-collected: {error}") from error
        if isinstance(error, IntegrityError):
            raise Rejected(f"{self._what} is corrupt in the store: {error}") from error
        if isinstance(error, UnfitModel):
            raise Rejected(f"{self._what} is no model that can be loaded: {error}") from error


async def _in_thread(work: Callable[[threading.Event], T], *, stop: asyncio.Event) -> T:
    """Run `work` in a thread, and let it know when the service stops or this task is cancelled."""
    interrupted = threading.Event()

    async def watch() -> None:
        await stop.wait()
        interrupted.set()

    watcher = asyncio.create_task(watch())
    try:
        return await asyncio.to_thread(work, interrupted)
    finally:
        interrupted.set()
        watcher.cancel()


CHECKPOINT_HANDLERS: Mapping[type[Event], Handler[Deps]] = {CheckpointSaved: evaluate_checkpoint}
