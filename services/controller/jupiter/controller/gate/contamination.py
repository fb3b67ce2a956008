"""Was the checkpoint trained on the benchmark that it is measured by? Then its scores say what it has seen.

Owns: the check that the training data were clean of the benchmark.
Does not know: how overlap is found (the curator) or added up (`controller.contamination`).
"""

from __future__ import annotations

from collections.abc import Iterator

from jupiter.controller.gate.case import Case
from jupiter.controller.gate.verdict import Check
from jupiter.reports import Contamination

__all__ = ["contamination_checks"]

_UNKNOWN = (
    "the evaluator counts those that can be read when it evaluates the next checkpoint, and its log names the others; "
    "restore them, or start another run (trainer.run)"
)


def contamination_checks(case: Case) -> Iterator[Check]:
    """Yield the check; none for a report made of plain lists, which knows of no training data."""
    found = case.report.contamination
    if found is None:
        return
    yield Check(
        name="training data clean of the benchmark",
        figure=_figure(found, case.report.benchmark_digest),
        bound="0 samples that overlap with it, in shards that were all counted against it",
        outcome="passed" if _clean(found, case.report.benchmark_digest) else "invalid",
        value=found.samples,
    )


def _clean(found: Contamination, benchmark_digest: str) -> bool:
    return found.benchmark_digest == benchmark_digest and not found.samples and not found.uncounted


def _figure(found: Contamination, benchmark_digest: str) -> str:
    if found.benchmark_digest != benchmark_digest:
        return f"counted against benchmark {found.benchmark_digest[:8]}, not {benchmark_digest[:8]}"
    counted = f"{found.samples} samples in {found.shards - found.uncounted} shards"
    if found.items:
        counted += f", of items: {', '.join(f'{count} {half}' for half, count in sorted(found.items.items()))}"
    if found.uncounted:
        counted += f"; {found.uncounted} shards of which nobody knows: {_UNKNOWN}"
    return counted
