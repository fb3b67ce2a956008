"""Reports, ledgers and events that the controller's tests are about."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from jupiter.config.sections import SelfImprovementSection
from jupiter.controller.gate import History
from jupiter.ledger import GENESIS_HASH, LedgerEntry
from jupiter.records import digest_of
from jupiter.reports import DIMENSIONS, Dimension, EvaluationReport, General, GeneralItem, ItemResult, seed_of
from jupiter.statistics import summarise

DOMAIN = "testing"
GENERATOR_SHA = digest_of("generator v1")
BENCHMARK = digest_of("benchmark")

Scorer = Callable[[random.Random, Dimension], tuple[float, float]]


def improvement(**changes: Any) -> SelfImprovementSection:
    """The customer's settings, with steps and samples small enough for a test."""
    return SelfImprovementSection.model_validate(
        {"eval_every_steps": 10, "min_steps_before_replace": 20, "benchmark_samples": 300, **changes}
    )


def items(scorer: Scorer, *, count: int = 600, clusters: int = 60, seed: int = 0) -> tuple[ItemResult, ...]:
    """`count` items over both halves, in equal shares per dimension; clusters fall wholly into one half."""
    rng = random.Random(seed)
    made = []
    for index in range(count):
        cluster = rng.randrange(clusters)
        dimension = DIMENSIONS[index % len(DIMENSIONS)]
        candidate, generator = scorer(rng, dimension)
        made.append(
            ItemResult(
                item_id=f"item-{index:04d}",
                dimension=dimension,
                kind="choice",
                cluster=f"cluster-{cluster}",
                half="confirmation" if cluster % 2 else "development",
                candidate=candidate,
                generator=generator,
            )
        )
    return tuple(made)


def better(rng: random.Random, _: Dimension) -> tuple[float, float]:
    """A candidate that is right 80 % of the time, the generator 50 %."""
    return float(rng.random() < 0.8), float(rng.random() < 0.5)


def equal(rng: random.Random, _: Dimension) -> tuple[float, float]:
    """Two models of the same ability."""
    return float(rng.random() < 0.5), float(rng.random() < 0.5)


def general(*, bits: float = 1.0, knowledge: float = 0.6, seed: int = 0) -> General:
    """A general suite on which the generator has 1 bit per byte and 60 % right; the candidate what is said."""
    rng = random.Random(seed)
    made = []
    for kind in ("text", "code"):
        for number in range(24):
            length, theirs = rng.randrange(400, 1200), rng.uniform(0.8, 1.2)
            ours = theirs * bits * rng.uniform(0.995, 1.005)
            made.append({"kind": kind, "number": number, "bytes": length, "candidate": ours, "generator": theirs})
    for number in range(120):
        level = rng.random()
        made.append({"kind": "knowledge", "number": number, "candidate": level < knowledge, "generator": level < 0.6})
    return General(
        suite="for tests",
        suite_digest=digest_of("suite"),
        items=tuple(
            GeneralItem.model_validate({"item_id": f"{one['kind']}-{one.pop('number')}", **one}) for one in made
        ),
    )


def report(scored: Sequence[ItemResult], *, step: int = 100, name: str = "one", **changes: Any) -> EvaluationReport:
    """A report whose figures follow from its items, and whose id follows from what it compares."""
    changes = {"checkpoint_manifest_sha256": digest_of("checkpoint", step, name), **changes}
    generator = changes.get("generator_manifest_sha256", GENERATOR_SHA)
    evaluation_id = digest_of(changes["checkpoint_manifest_sha256"], generator, BENCHMARK)
    seed = seed_of(evaluation_id, BENCHMARK)
    summary = summarise(scored, seed=seed)
    return EvaluationReport.model_validate(
        {
            "evaluation_id": evaluation_id,
            "domain": DOMAIN,
            "checkpoint_id": digest_of(DOMAIN, "run1", step),
            "run": "run1",
            "step": step,
            "checkpoint_manifest_key": f"checkpoints/{DOMAIN}/run1/{step:09d}/manifest.json",
            "generator_version": 1,
            "generator_manifest_sha256": GENERATOR_SHA,
            "benchmark_digest": BENCHMARK,
            "seed": seed,
            "items": tuple(scored),
            "candidate": summary.candidate,
            "generator": summary.generator,
            "difference": summary.difference,
            "ci_low": summary.ci_low,
            "ci_high": summary.ci_high,
            "generated_at": "2026-01-01T00:00:00.000+00:00",
            "wall_s": 1.0,
            "general": general(),
            **changes,
        }
    )


def first_entry(**changes: Any) -> LedgerEntry:
    """The registration of the base."""
    return LedgerEntry.model_validate(
        {
            "domain": DOMAIN,
            "sequence": 1,
            "action": "registered",
            "version": 1,
            "previous_version": None,
            "manifest_key": f"generators/{DOMAIN}/v1/manifest.json",
            "manifest_sha256": GENERATOR_SHA,
            "actor": "controller",
            "reason": "the base model was imported",
            "time": "2026-01-01T00:00:00.000+00:00",
            "previous_hash": GENESIS_HASH,
            **changes,
        }
    )


def history() -> History:
    """Version 1 is live and nothing was judged yet."""
    return History(ledger=(first_entry(),))
