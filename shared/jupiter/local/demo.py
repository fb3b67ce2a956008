"""`make demo`: one whole turn of the cycle on this machine, by the same services as everywhere, told as it happens.

Owns: the order in which the demo waits for things, and the one action that a user takes in it (the rollback).
Does not know: how any of it works, nor how progress is shown. It decides nothing: the gate does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

from jupiter.blobs import Blobs
from jupiter.bus import Bus
from jupiter.config import ClusterConfig
from jupiter.events import (
    BatchGenerated,
    BenchmarkFrozen,
    ConfirmationCompleted,
    EvaluationCompleted,
    GeneratorLoaded,
    GeneratorPromoted,
    GeneratorRolledBack,
    ShadowJudged,
    ShardCurated,
    VerdictReached,
)
from jupiter.local.outcome import DemoOutcome, judged
from jupiter.local.report import build_report
from jupiter.local.watch import CycleWatch
from jupiter.orchestrator import SelfImprover

__all__ = ["DemoCluster", "run_demo"]

Say = Callable[[str], None]

# Generous: a loaded machine is slow, and a wait that ends too early tells nothing.
SETUP_S_MAX = 900.0
ROUND_S_MAX = 3600.0
RELOAD_S_MAX = 600.0
# What is in a stream already has only to be read.
READ_S_MAX = 60.0


class DemoCluster(Protocol):
    """What `LocalCluster` is to the demo."""

    @property
    def config(self) -> ClusterConfig: ...
    @property
    def bus(self) -> Bus: ...
    @property
    def blobs(self) -> Blobs: ...
    @property
    def watch(self) -> CycleWatch: ...
    async def start(self) -> None: ...
    async def drain(self) -> None: ...
    async def wait_for(self, condition: Callable[[CycleWatch], object], *, what: str, timeout_s: float) -> None: ...


async def run_demo(cluster: DemoCluster, config: ClusterConfig, *, rounds_max: int, say: Say) -> DemoOutcome:
    """Run the cycle on a cluster that is not started yet, until a promotion and a rollback, or `rounds_max` verdicts.

    What it waited for in vain stands in the outcome. Raises whatever the cluster raises.
    """
    began = time.monotonic()
    say("starting nats-server, the S3 store and the five services")
    await cluster.start()
    never_happened = None
    try:
        await _turn(cluster, rounds_max=rounds_max, say=say)
    except TimeoutError as error:
        never_happened = str(error)
        say(f"giving up: {error}")
    await cluster.drain()
    control = config.trainer.control
    report = await build_report(
        cluster.blobs,
        cluster.bus,
        cluster.watch,
        domain=config.domain,
        control=control,
        wall_s=time.monotonic() - began,
    )
    return judged(report, control=control, never_happened=never_happened)


async def _turn(cluster: DemoCluster, *, rounds_max: int, say: Say) -> None:
    """See the whole turn of the cycle. Raises TimeoutError that names what never happened."""
    await _prepare(cluster, say)
    if await _until_decided(cluster, rounds_max=rounds_max, say=say):
        await _see_it_generate(cluster, say)
        await _roll_back(cluster, say)


async def _prepare(cluster: DemoCluster, say: Say) -> None:
    await cluster.wait_for(
        lambda seen: seen.all(GeneratorLoaded), what="the base model to serve as version 1", timeout_s=SETUP_S_MAX
    )
    say("the base model serves as generator v1")
    await cluster.wait_for(lambda seen: seen.all(BenchmarkFrozen), what="a frozen benchmark", timeout_s=SETUP_S_MAX)
    frozen = cluster.watch.all(BenchmarkFrozen)[-1]
    say(f"benchmark frozen: {frozen.items} items from {frozen.clusters} sources, digest {frozen.digest[:12]}")
    await cluster.wait_for(lambda seen: seen.all(ShardCurated), what="the first shard", timeout_s=SETUP_S_MAX)
    say("the first shard is curated; the trainer begins")


async def _until_decided(cluster: DemoCluster, *, rounds_max: int, say: Say) -> bool:
    """Report each verdict as it comes; return whether one promoted."""
    for number in range(1, rounds_max + 1):
        await cluster.wait_for(
            partial(_has_verdicts, number),
            what=f"verdict {number}",
            timeout_s=ROUND_S_MAX,
        )
        verdict = cluster.watch.all(VerdictReached)[number - 1]
        # The channels are followed side by side: a verdict may be read before the evaluation that it is about.
        await cluster.wait_for(
            partial(_is_told, verdict), what=f"the evaluation of verdict {number}", timeout_s=READ_S_MAX
        )
        say(f"round {number}: {_told(verdict, cluster.watch)}")
        _say_stages(cluster.watch, verdict.evaluation_id, say)
        for reason in verdict.reasons:
            say(f"    {reason}")
        if verdict.decision == "PROMOTE":
            return True
    return False


def _is_told(verdict: VerdictReached, seen: CycleWatch) -> bool:
    """Whether what the verdict is about was read. A checkpoint that could not be evaluated is INVALID without one."""
    return verdict.decision == "INVALID" or _evaluation(seen, verdict.evaluation_id) is not None


def _told(verdict: VerdictReached, seen: CycleWatch) -> str:
    found = _evaluation(seen, verdict.evaluation_id)
    if found is None:
        return f"no evaluation could be made → {verdict.decision}"
    return (
        f"step {found.step}: candidate {found.candidate_score:.3f}, generator "
        f"v{found.generator_version} {found.generator_score:.3f}, difference {found.difference:+.3f} "
        f"[{found.ci_low:+.3f}, {found.ci_high:+.3f}] → {verdict.decision}"
    )


def _say_stages(seen: CycleWatch, evaluation_id: str, say: Say) -> None:
    """Tell what the sealed half and the shadow batch said, where the evaluation came that far."""
    for sealed in seen.all(ConfirmationCompleted):
        if sealed.evaluation_id == evaluation_id:
            say(
                f"    sealed half (opening {sealed.opening}, {sealed.items} items): candidate "
                f"{sealed.candidate_score:.3f}, generator {sealed.generator_score:.3f}, {sealed.difference:+.3f}"
            )
    for shadow in seen.all(ShadowJudged):
        if shadow.evaluation_id == evaluation_id:
            say(
                f"    shadow batch of {shadow.items}: {shadow.candidate_accepted} of the candidate's accepted, "
                f"{shadow.incumbent_accepted} of the generator's"
            )


def _has_verdicts(number: int, seen: CycleWatch) -> bool:
    return len(seen.all(VerdictReached)) >= number


def _evaluation(seen: CycleWatch, evaluation_id: str) -> EvaluationCompleted | None:
    return next((event for event in seen.all(EvaluationCompleted) if event.evaluation_id == evaluation_id), None)


async def _see_it_generate(cluster: DemoCluster, say: Say) -> None:
    """Wait for the flip, its hot reload, and data made by the new version."""
    await cluster.wait_for(lambda seen: _flip(seen), what="the promotion in the ledger", timeout_s=RELOAD_S_MAX)
    flip = _flip(cluster.watch)
    if flip is None:
        raise AssertionError("the promotion was seen and is gone")
    say(f"generator v{flip.version} is in the ledger (entry {flip.ledger_sequence})")
    _say_what_is_left(cluster.watch, flip.version, say)
    await _until_loaded(cluster, flip.ledger_sequence, say)
    await cluster.wait_for(
        lambda seen: any(batch.generator_version == flip.version for batch in seen.all(BatchGenerated)),
        what=f"a batch made by v{flip.version}",
        timeout_s=ROUND_S_MAX,
    )
    say(f"v{flip.version} has generated its first batch")
    await cluster.wait_for(
        lambda seen: any(shard.generator_version == flip.version for shard in seen.all(ShardCurated)),
        what=f"a shard made from a batch of v{flip.version}",
        timeout_s=ROUND_S_MAX,
    )
    say(f"the curator has made a shard of it: the cycle goes on with data of v{flip.version}")


def _say_what_is_left(seen: CycleWatch, version: int, say: Say) -> None:
    """Tell about how long the new version takes to load and to make a batch: as long as the last ones took."""
    loads, batches = seen.all(GeneratorLoaded), seen.all(BatchGenerated)
    if loads and batches:
        load_s, batch_s = loads[-1].seconds, batches[-1].seconds
        say(
            f"about {load_s + batch_s:.0f} s until v{version} has made a batch: the last load took {load_s:.0f} s, "
            f"the last batch {batch_s:.0f} s; then it is rolled back, about {load_s:.0f} s more"
        )


def _flip(seen: CycleWatch) -> GeneratorPromoted | None:
    return next((event for event in seen.all(GeneratorPromoted) if event.previous_version is not None), None)


async def _roll_back(cluster: DemoCluster, say: Say) -> None:
    """Take the promotion back in one call, as a user would, through the library."""
    improver = SelfImprover(cluster.config, None)
    await improver.rollback_generator()
    await cluster.wait_for(
        lambda seen: seen.all(GeneratorRolledBack), what="the rollback in the ledger", timeout_s=RELOAD_S_MAX
    )
    back = cluster.watch.all(GeneratorRolledBack)[-1]
    say(f"rolled back to v{back.version} by one call (entry {back.ledger_sequence})")
    await _until_loaded(cluster, back.ledger_sequence, say)


async def _until_loaded(cluster: DemoCluster, ledger_sequence: int, say: Say) -> None:
    wanted = cluster.config.local.generators
    await cluster.wait_for(
        lambda seen: len(_loads(seen, ledger_sequence)) >= wanted,
        what=f"{wanted} generator(s) to load ledger entry {ledger_sequence}",
        timeout_s=RELOAD_S_MAX,
    )
    for load in _loads(cluster.watch, ledger_sequence):
        say(f"{load.instance} attested and serves v{load.version} after {load.seconds:.1f} s")


def _loads(seen: CycleWatch, ledger_sequence: int) -> list[GeneratorLoaded]:
    return [event for event in seen.all(GeneratorLoaded) if event.ledger_sequence == ledger_sequence]
