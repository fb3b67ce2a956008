"""`make demo`: one whole turn of the cycle on this machine, by the same services as everywhere, told as it happens.

Owns: the order in which the demo waits for things, and the one action that a user takes in it (the rollback).
Does not know: how any of it works, nor how progress is shown. It decides nothing: the gate does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from jupiter.config import ClusterConfig
from jupiter.events import (
    BatchGenerated,
    BenchmarkFrozen,
    EvaluationCompleted,
    GeneratorLoaded,
    GeneratorPromoted,
    GeneratorRolledBack,
    ShardCurated,
    VerdictReached,
)
from jupiter.local.cluster import LocalCluster
from jupiter.local.report import build_report
from jupiter.local.watch import CycleWatch
from jupiter.orchestrator import SelfImprover

__all__ = ["DemoOutcome", "run_demo"]

Say = Callable[[str], None]

# Generous: a loaded machine is slow, and a wait that ends too early tells nothing.
SETUP_S_MAX = 900.0
ROUND_S_MAX = 3600.0
RELOAD_S_MAX = 600.0


@dataclass(frozen=True, kw_only=True)
class DemoOutcome:
    """What happened, and whether it is what this run set out to show."""

    report: Mapping[str, Any]
    as_expected: bool
    summary: str


async def run_demo(cluster: LocalCluster, config: ClusterConfig, *, rounds_max: int, say: Say) -> DemoOutcome:
    """Run the cycle on a cluster that is not started yet, until a promotion and a rollback, or `rounds_max` verdicts.

    Raises TimeoutError that names what never happened, and whatever the cluster raises.
    """
    began = time.monotonic()
    say("starting nats-server, the S3 store and the five services")
    await cluster.start()
    await _prepare(cluster, say)
    promoted = await _until_decided(cluster, rounds_max=rounds_max, say=say)
    if promoted:
        await _see_it_generate(cluster, say)
        await _roll_back(cluster, say)
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
    return _outcome(report, control=control)


async def _prepare(cluster: LocalCluster, say: Say) -> None:
    await cluster.wait_for(
        lambda seen: seen.all(GeneratorLoaded), what="the base model to serve as version 1", timeout_s=SETUP_S_MAX
    )
    say("the base model serves as generator v1")
    await cluster.wait_for(lambda seen: seen.all(BenchmarkFrozen), what="a frozen benchmark", timeout_s=SETUP_S_MAX)
    frozen = cluster.watch.all(BenchmarkFrozen)[-1]
    say(f"benchmark frozen: {frozen.items} items from {frozen.clusters} sources, digest {frozen.digest[:12]}")
    await cluster.wait_for(lambda seen: seen.all(ShardCurated), what="the first shard", timeout_s=SETUP_S_MAX)
    say("the first shard is curated; the trainer begins")


async def _until_decided(cluster: LocalCluster, *, rounds_max: int, say: Say) -> bool:
    """Report each verdict as it comes; return whether one promoted."""
    for number in range(1, rounds_max + 1):
        await cluster.wait_for(
            partial(_has_verdicts, number),
            what=f"verdict {number}",
            timeout_s=ROUND_S_MAX,
        )
        verdict = cluster.watch.all(VerdictReached)[number - 1]
        found = _evaluation(cluster.watch, verdict.evaluation_id)
        say(
            f"round {number}, step {found.step}: candidate {found.candidate_score:.3f}, generator "
            f"v{found.generator_version} {found.generator_score:.3f}, difference {found.difference:+.3f} "
            f"[{found.ci_low:+.3f}, {found.ci_high:+.3f}] → {verdict.decision}"
        )
        for reason in verdict.reasons:
            say(f"    {reason}")
        if verdict.decision == "PROMOTE":
            return True
    return False


def _has_verdicts(number: int, seen: CycleWatch) -> bool:
    return len(seen.all(VerdictReached)) >= number


def _evaluation(seen: CycleWatch, evaluation_id: str) -> EvaluationCompleted:
    return next(event for event in seen.all(EvaluationCompleted) if event.evaluation_id == evaluation_id)


async def _see_it_generate(cluster: LocalCluster, say: Say) -> None:
    """Wait for the flip, its hot reload, and data made by the new version."""
    await cluster.wait_for(lambda seen: _flip(seen), what="the promotion in the ledger", timeout_s=RELOAD_S_MAX)
    flip = _flip(cluster.watch)
    if flip is None:
        raise AssertionError("the promotion was seen and is gone")
    say(f"generator v{flip.version} is in the ledger (entry {flip.ledger_sequence})")
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


def _flip(seen: CycleWatch) -> GeneratorPromoted | None:
    return next((event for event in seen.all(GeneratorPromoted) if event.previous_version is not None), None)


async def _roll_back(cluster: LocalCluster, say: Say) -> None:
    """Take the promotion back in one call, as a user would, through the library."""
    improver = SelfImprover(cluster.config, None)
    await improver.rollback_generator()
    await cluster.wait_for(
        lambda seen: seen.all(GeneratorRolledBack), what="the rollback in the ledger", timeout_s=RELOAD_S_MAX
    )
    back = cluster.watch.all(GeneratorRolledBack)[-1]
    say(f"rolled back to v{back.version} by one call (entry {back.ledger_sequence})")
    await _until_loaded(cluster, back.ledger_sequence, say)


async def _until_loaded(cluster: LocalCluster, ledger_sequence: int, say: Say) -> None:
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


def _outcome(report: Mapping[str, Any], *, control: str) -> DemoOutcome:
    verdicts = ", ".join(str(one["verdict"]) for one in report["evaluations"]) or "none"
    whole = report["lost"] == 0
    if control == "shuffled":
        expected = not report["promoted"] and bool(report["evaluations"]) and whole
        said = "the gate refused a student trained on shuffled answers" if expected else "this control must not promote"
    else:
        expected = bool(report["promoted"]) and report["rolled_back_to"] is not None and whole
        said = "promoted, reloaded, generated and rolled back" if expected else "no promotion: see the gate's reasons"
    return DemoOutcome(
        report=report, as_expected=expected, summary=f"{said} (verdicts: {verdicts}; lost: {report['lost']})"
    )
