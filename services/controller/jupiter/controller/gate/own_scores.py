"""Reports made of plain lists, so that anyone can put their own figures before the gate.

Owns: a report, a history and a confirmation around paired scores, consistent in every id and digest.
Does not know: any rule. The evaluator builds its reports itself; nothing here is used in a cluster.

    rows = [("accuracy", "manual.md", 1.0, 0.0), ("coherence", "guide.md", 0.7, 0.8), …]   # candidate, generator
    history = first_history()
    report = report_of(development_rows, step=20_000)
    verdict = decide(report, history, SelfImprovementSection(general_suite=False, shadow_check=False))
    if verdict.wants == "confirmation":
        history = opened(history, report)
        verdict = decide(confirmed(report, sealed_rows, history), history, …)
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from jupiter.controller.gate.verdict import History
from jupiter.ledger import GENESIS_HASH, LedgerEntry, current, entry_hash, opening_of, openings
from jupiter.records import digest_of
from jupiter.reports import Confirmation, Dimension, EvaluationReport, General, Half, ItemResult, Judgement, seed_of
from jupiter.statistics import tabulate

__all__ = ["Row", "confirmed", "first_history", "opened", "report_of"]

Row = tuple[Dimension, str, float, float]
"""One item: its dimension, its cluster (the document it comes from), the candidate's and the generator's score."""

DOMAIN = "own"
TIME = "2026-01-01T00:00:00.000+00:00"
ITEMS_KEPT = 200_000
"""Items are immutable, so looks that share them share the objects: a simulation is twice as fast for it."""


def first_history(generator: str = "generator") -> History:
    """Return a history in which version 1 is live and nothing was decided yet."""
    entry = LedgerEntry(
        domain=DOMAIN,
        sequence=1,
        action="registered",
        version=1,
        previous_version=None,
        manifest_key=f"generators/{DOMAIN}/v1/manifest.json",
        manifest_sha256=digest_of(generator),
        actor="controller",
        reason="the base model was imported",
        time=TIME,
        previous_hash=GENESIS_HASH,
    )
    return History(ledger=(entry,))


def report_of(
    development: Sequence[Row],
    *,
    step: int,
    checkpoint: str | None = None,
    generator: str = "generator",
    generator_version: int = 1,
    benchmark: str = "benchmark",
    general: General | None = None,
    judge: Judgement | None = None,
) -> EvaluationReport:
    """Return the report of a candidate on the development half. Raises ValueError when a dimension has no item.

    `checkpoint`, `generator` and `benchmark` are any names: digests and ids follow from them. The interval of the
    difference is left open (−1 … 1): the gate draws its own.
    """
    items = _items(development, "development")
    candidate, incumbent = tabulate(items).scores()
    checkpoint = f"step {step}" if checkpoint is None else checkpoint
    digests = [digest_of(name) for name in (checkpoint, generator, benchmark)]
    evaluation_id = digest_of(*digests)
    return EvaluationReport(
        evaluation_id=evaluation_id,
        domain=DOMAIN,
        checkpoint_id=digest_of(DOMAIN, "own", step, checkpoint),
        run="own",
        step=step,
        checkpoint_manifest_key=f"checkpoints/{DOMAIN}/own/{step:09d}/manifest.json",
        checkpoint_manifest_sha256=digests[0],
        generator_version=generator_version,
        generator_manifest_sha256=digests[1],
        benchmark_digest=digests[2],
        seed=seed_of(evaluation_id, digests[2]),
        items=items,
        candidate=candidate,
        generator=incumbent,
        difference=candidate.composite - incumbent.composite,
        ci_low=-1,
        ci_high=1,
        generated_at=TIME,
        wall_s=0,
        general=general,
        judge=judge,
    )


def opened(history: History, report: EvaluationReport) -> History:
    """Return the history after the sealed half was opened for this report, as the controller writes it."""
    live = current(history.ledger)
    if live is None:
        raise ValueError("nothing is live in this history: begin with first_history()")
    entry = LedgerEntry(
        domain=live.domain,
        sequence=len(history.ledger) + 1,
        action="opened",
        version=live.version,
        previous_version=live.version,
        evaluation_id=report.evaluation_id,
        manifest_key=live.manifest_key,
        manifest_sha256=live.manifest_sha256,
        actor="controller",
        reason="passed the screen",
        time=TIME,
        previous_hash=entry_hash(history.ledger[-1]),
        benchmark_digest=report.benchmark_digest,
        opening=1 + len(openings(history.ledger, version=live.version)),
    )
    return history.model_copy(update={"ledger": (*history.ledger, entry)})


def confirmed(
    report: EvaluationReport, sealed: Sequence[Row], history: History, *, judge: Judgement | None = None
) -> EvaluationReport:
    """Return the report with the scores on the sealed half. Raises ValueError unless it was opened for the report."""
    entry = opening_of(history.ledger, report.evaluation_id)
    if entry is None or entry.opening is None:
        raise ValueError("the sealed half was not opened for this report: `history = opened(history, report)` first")
    items = _items(sealed, "confirmation")
    candidate, generator = tabulate(items).scores()
    confirmation = Confirmation(
        evaluation_id=report.evaluation_id,
        opening=entry.opening,
        ledger_sequence=entry.sequence,
        benchmark_digest=report.benchmark_digest,
        checkpoint_manifest_sha256=report.checkpoint_manifest_sha256,
        generator_manifest_sha256=report.generator_manifest_sha256,
        items=items,
        candidate=candidate,
        generator=generator,
        difference=candidate.composite - generator.composite,
        ci_low=-1,
        ci_high=1,
        generated_at=TIME,
        wall_s=0,
        judge=judge,
    )
    return report.model_copy(update={"confirmation": confirmation})


def _items(rows: Sequence[Row], half: Half) -> tuple[ItemResult, ...]:
    return tuple(_item(half, index, *row) for index, row in enumerate(rows))


@lru_cache(maxsize=ITEMS_KEPT)
def _item(half: Half, index: int, dimension: Dimension, cluster: str, candidate: float, generator: float) -> ItemResult:
    return ItemResult(
        item_id=f"{half}-{index:05d}",
        dimension=dimension,
        kind="own",
        cluster=cluster,
        half=half,
        candidate=candidate,
        generator=generator,
    )
