"""What the evaluator does with its messages: a checkpoint becomes an evaluation, an opening a confirmation, and a
request for another benchmark one (`renewing`).

Owns: the order of steps, and what is done already. Does not know: ack and nak (`jupiter.deliveries`), any score.
A handler may be called again for the same message at any time: a manifest is created once and announced again.

Evaluation and confirmation never mix. An evaluation asks the development half only; the sealed half is asked for an
evaluation that an opening in the ledger was spent on, with the prompts that its report chose, and nothing of it is
known before.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

from jupiter import keys, manifests
from jupiter.blobs import Blobs
from jupiter.errors import IntegrityError, NotFound, Rejected, Retry
from jupiter.evaluator.benchmarks import FrozenBenchmark
from jupiter.evaluator.contest import Contest, hold
from jupiter.evaluator.deps import WAIT_S, Deps, the_frozen
from jupiter.evaluator.match import Match, evaluation_id_of
from jupiter.evaluator.renewing import renew_benchmark
from jupiter.evaluator.reporting import commit_report, completed
from jupiter.evaluator.sealed import commit_confirmation, confirmed, open_sealed
from jupiter.events import (
    BenchmarkRenewalRequested,
    CheckpointSaved,
    ConfirmationCompleted,
    ConfirmationRequested,
    EvaluationCompleted,
    Event,
)
from jupiter.generations import pointers
from jupiter.ledger import LedgerEntry, current, flips, read_ledger
from jupiter.manifests import Committed
from jupiter.service import Handler

__all__ = [
    "BENCHMARK_HANDLERS",
    "CHECKPOINT_HANDLERS",
    "CONFIRMATION_HANDLERS",
    "Deps",
    "confirm_evaluation",
    "evaluate_checkpoint",
]

log = logging.getLogger(__name__)


async def evaluate_checkpoint(event: CheckpointSaved, deps: Deps) -> Sequence[Event]:
    """Score checkpoint and current generator on the development half, or announce again what is committed already."""
    runtime, frozen = deps.runtime, await the_frozen(deps)
    ledger = await asyncio.to_thread(read_ledger, runtime.blobs, runtime.domain)
    live = current(ledger)
    if live is None:
        await runtime.status("waiting", detail="no generator is registered yet")
        raise Retry("no generator is registered yet", delay_s=WAIT_S, counts=False)
    found = await asyncio.to_thread(_committed, runtime.blobs, event, ledger)
    if not found:
        await _count_shards(event, frozen, deps)
        match = Match.of_checkpoint(event, generator=live, frozen=frozen)
        general = runtime.config.self_improvement.general_suite
        contest = Contest(match=match, half="development", stage="evaluating", general=general)
        found = [await hold(contest, deps, lambda both: commit_report(runtime.blobs, match, both))]
    done = [completed(committed) for committed in found]
    await _say_evaluated(done[-1], deps)
    return done


def _committed(blobs: Blobs, event: CheckpointSaved, ledger: Sequence[LedgerEntry]) -> list[Committed]:
    """Return what is committed of this checkpoint, against whichever version and on whichever benchmark it was.

    An evaluator that died between commit and announcement may come back to another generator, or another benchmark. The
    report it left is the checkpoint's evaluation all the same: it is announced, and the checkpoint is not compared a
    second time.
    """
    versions = dict.fromkeys(entry.manifest_sha256 for entry in flips(ledger))
    prefixes = (
        keys.evaluation_prefix(
            event.domain,
            evaluation_id_of(
                checkpoint_sha256=event.manifest_sha256, generator_sha256=sha256, benchmark_digest=pointer.digest
            ),
        )
        for pointer in pointers(blobs, event.domain)
        for sha256 in versions
    )
    return [committed for prefix in prefixes if (committed := manifests.find(blobs, prefix))]


async def _count_shards(event: CheckpointSaved, frozen: FrozenBenchmark, deps: Deps) -> None:
    """Count what the checkpoint's shards hold of the benchmark, where nobody has: the gate will ask."""
    shard_ids = await asyncio.to_thread(_shards_of, deps.runtime.blobs, event)
    missing = await asyncio.to_thread(deps.counting.uncounted, shard_ids, benchmark_digest=frozen.digest)
    if not missing:
        return
    loop, detail = asyncio.get_running_loop(), f"earlier shards against benchmark {frozen.digest[:12]}"

    def progress(done: int, total: int) -> None:
        status = deps.runtime.status("counting", detail=detail, done=done, total=total, unit="shards")
        asyncio.run_coroutine_threadsafe(status, loop)

    await asyncio.to_thread(deps.counting.count, missing, frozen.benchmark, progress)


def _shards_of(blobs: Blobs, event: CheckpointSaved) -> Sequence[str]:
    """Return what the checkpoint was trained on; nothing when it cannot be read, which the contest then says."""
    try:
        manifest = manifests.read(blobs, event.manifest_key, sha256=event.manifest_sha256).manifest
    except (NotFound, IntegrityError):
        return ()
    return tuple(manifest.details.get("shards", ()))


async def _say_evaluated(done: EvaluationCompleted, deps: Deps) -> None:
    await deps.runtime.status(
        "idle",
        detail=f"step {done.step} scored {done.candidate_score:.3f}, generator v{done.generator_version} "
        f"{done.generator_score:.3f}: difference {done.difference:+.3f} [{done.ci_low:+.3f}, {done.ci_high:+.3f}]",
        evaluation_id=done.evaluation_id,
        difference=done.difference,
    )


async def confirm_evaluation(request: ConfirmationRequested, deps: Deps) -> Sequence[Event]:
    """Score both models on the sealed half with the report's prompts, or announce again what is committed already."""
    runtime = deps.runtime
    prefix = keys.sealed_prefix(runtime.domain, request.evaluation_id)
    committed = await asyncio.to_thread(manifests.find, runtime.blobs, prefix)
    if committed is None:
        newest = await the_frozen(deps)
        opened = await asyncio.to_thread(open_sealed, runtime.blobs, request, domain=runtime.domain, newest=newest)
        log.info("opening %d of the sealed half: %s", request.opening, opened.match.detail)
        committed = await hold(opened.contest(), deps, lambda both: commit_confirmation(runtime.blobs, opened, both))
    done = confirmed(committed)
    if done.opening != request.opening:
        raise Rejected(
            f"the sealed half was opened for evaluation {request.evaluation_id[:12]} as opening {done.opening}; "
            f"it is not opened again as opening {request.opening}"
        )
    await _say_confirmed(done, deps)
    return [done]


async def _say_confirmed(done: ConfirmationCompleted, deps: Deps) -> None:
    await deps.runtime.status(
        "idle",
        detail=f"sealed half, opening {done.opening}: {done.candidate_score:.3f} against {done.generator_score:.3f}, "
        f"difference {done.difference:+.3f}",
        evaluation_id=done.evaluation_id,
        difference=done.difference,
    )


CHECKPOINT_HANDLERS: Mapping[type[Event], Handler[Deps]] = {CheckpointSaved: evaluate_checkpoint}
CONFIRMATION_HANDLERS: Mapping[type[Event], Handler[Deps]] = {ConfirmationRequested: confirm_evaluation}
BENCHMARK_HANDLERS: Mapping[type[Event], Handler[Deps]] = {BenchmarkRenewalRequested: renew_benchmark}
