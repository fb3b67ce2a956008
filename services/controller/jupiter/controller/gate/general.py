"""General ability: what a candidate may not lose while it specialises.

Owns: the non-inferiority bounds on the general suite.
Does not know: what the suite asks (the evaluator).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import fmean

from jupiter.controller.gate.case import Case
from jupiter.controller.gate.verdict import Check, Outcome
from jupiter.reports import General, GeneralItem, GeneralKind
from jupiter.statistics import bootstrap_ratio

__all__ = ["general_checks"]

LEVEL = 0.90
# Of fewer a bootstrap does not know its tails.
ITEMS_MIN = 8


def general_checks(case: Case) -> Iterator[Check]:
    """Yield a check of the suite, and one per kind of ability."""
    if not case.config.general_suite:
        return
    general = case.report.general
    fault = _fault(general)
    yield Check(
        name="general ability measured",
        figure=fault or (f"{len(general.items)} items of {general.suite}" if general else ""),
        bound=f"both models on the same items, >= {ITEMS_MIN} of each kind",
        outcome="invalid" if fault else "passed",
    )
    if general and not fault:
        for kind in ("text", "code"):
            yield _bits(case, kind, _of(general, kind))
        yield _knowledge(case, _of(general, "knowledge"))


def _of(general: General, kind: GeneralKind) -> list[GeneralItem]:
    """By id, so that their order in the report does not matter."""
    return sorted((item for item in general.items if item.kind == kind), key=lambda item: item.item_id)


def _fault(general: General | None) -> str:
    if general is None:
        return "not measured, though general_suite asks for it"
    if len({item.item_id for item in general.items}) < len(general.items):
        return "an item occurs twice"
    for kind in ("knowledge", "text", "code"):
        items = _of(general, kind)
        if len(items) < ITEMS_MIN:
            return f"{len(items)} items of {kind}"
        if kind != "knowledge" and not all(item.generator > 0 and item.candidate > 0 for item in items):
            return f"a {kind} item of 0 bits per byte: no model foresees a text for certain"
    return ""


def _bits(case: Case, kind: str, items: list[GeneralItem]) -> Check:
    """Bits per byte over all bytes, as they would be of one long text; lower is better."""
    candidate = [item.bytes * item.candidate for item in items]
    generator = [item.bytes * item.generator for item in items]
    change = round(math.fsum(candidate) / math.fsum(generator) - 1, 9)
    drawn = bootstrap_ratio(candidate, generator, seed=case.seed)
    lower, upper, most = drawn.lower(LEVEL) - 1, drawn.upper(LEVEL) - 1, case.config.general_loss_max
    total = math.fsum(item.bytes for item in items)
    return Check(
        name=f"general {kind}",
        figure=f"bits per byte {change:+.2%}, at most {upper:+.2%} "
        f"({math.fsum(generator) / total:.4f} → {math.fsum(candidate) / total:.4f})",
        bound=f"90 % upper bound <= {most:+.2%}",
        outcome=_outcome(kept=upper <= most, lost=lower > most),
        value=change,
    )


def _knowledge(case: Case, items: list[GeneralItem]) -> Check:
    differences = [item.candidate - item.generator for item in items]
    drawn = bootstrap_ratio(differences, [1.0] * len(items), seed=case.seed)
    lower, upper, least = drawn.lower(LEVEL), drawn.upper(LEVEL), -case.config.general_knowledge_loss_max
    return Check(
        name="general knowledge",
        figure=f"{fmean(differences):+.4f}, at least {lower:+.4f} "
        f"({fmean(item.generator for item in items):.4f} → {fmean(item.candidate for item in items):.4f})",
        bound=f"90 % lower bound >= {least:+.4f}",
        outcome=_outcome(kept=lower >= least, lost=upper < least),
        value=round(fmean(differences), 9),
    )


def _outcome(*, kept: bool, lost: bool) -> Outcome:
    return "passed" if kept else "reject" if lost else "hold"
