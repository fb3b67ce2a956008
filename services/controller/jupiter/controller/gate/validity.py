"""May the figures be believed at all? Every fault here is INVALID, and never a score.

Owns: the checks of the evidence on both halves: whose it is, its items, its arithmetic, its judge.
Does not know: whether the candidate is better.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from jupiter.controller.gate.case import JUDGED, Case
from jupiter.controller.gate.verdict import Check, Outcome
from jupiter.records import digest_of
from jupiter.reports import (
    CLUSTERS_MIN,
    DIMENSIONS,
    HALF_SHARES_MIN,
    Confirmation,
    EvaluationReport,
    Half,
    ItemResult,
    Judgement,
)
from jupiter.statistics import Table

__all__ = ["confirmation_checks", "report_checks"]

# Reported composites are recomputed from the same items; more than rounding means another set of items.
COMPOSITE_TOLERANCE = 1e-6


def report_checks(case: Case) -> Iterator[Check]:
    """Yield the checks of the report; the arithmetic only where the items are sound."""
    report = case.report
    yield _current_generator(case)
    yield _belongs_together(report)
    sound = _items_sound("development", report.items, report.judge)
    yield sound
    one_model = _telling_apart(report, sound=sound.outcome == "passed")
    if one_model is not None:
        yield one_model
    if sound.outcome == "passed":
        yield _recomputed("development", case.development, report)
        yield _enough_items(case, "development", report.items)
    if report.judge is not None:
        yield _judge("judge", report.judge)


def confirmation_checks(case: Case, confirmation: Confirmation) -> Iterator[Check]:
    """Yield the checks of what was found on the sealed half."""
    yield _opening(case, confirmation)
    sound = _items_sound("sealed", confirmation.items, confirmation.judge, apart_from=case.report.items)
    yield sound
    if sound.outcome == "passed":
        yield _recomputed("sealed", case.sealed, confirmation)
        yield _enough_items(case, "sealed", confirmation.items)
    if confirmation.judge is not None:
        yield _judge("judge on the sealed half", confirmation.judge)


def _current_generator(case: Case) -> Check:
    """A report against a generator that is no longer live compares with the past."""
    live, report = case.live, case.report
    same = (
        live is not None
        and report.domain == live.domain
        and report.generator_version == live.version
        and report.generator_manifest_sha256 == live.manifest_sha256
    )
    return Check(
        name="compared with the current generator",
        figure=f"v{report.generator_version} ({report.generator_manifest_sha256[:8]})",
        bound=f"v{live.version} ({live.manifest_sha256[:8]})" if live else "a ledger with a generator",
        outcome="passed" if same else "invalid",
    )


def _belongs_together(report: EvaluationReport) -> Check:
    """The evaluation's id follows from what was compared: figures of another checkpoint have another one."""
    wanted = digest_of(report.checkpoint_manifest_sha256, report.generator_manifest_sha256, report.benchmark_digest)
    return Check(
        name="about these models and this benchmark",
        figure=f"evaluation {report.evaluation_id[:8]}",
        bound=f"{wanted[:8]}, which follows from checkpoint, generator and benchmark",
        outcome="passed" if report.evaluation_id == wanted else "invalid",
    )


def _opening(case: Case, confirmation: Confirmation) -> Check:
    """The opening must have been spent in the ledger, on this evaluation, before anything was scored."""
    report, entry = case.report, case.opening
    wanted = {
        "evaluation": (confirmation.evaluation_id, report.evaluation_id),
        "benchmark": (confirmation.benchmark_digest, report.benchmark_digest),
        "checkpoint": (confirmation.checkpoint_manifest_sha256, report.checkpoint_manifest_sha256),
        "generator": (confirmation.generator_manifest_sha256, report.generator_manifest_sha256),
    }
    if entry is not None:
        wanted |= {
            "opening": (str(confirmation.opening), str(entry.opening)),
            "ledger entry": (str(confirmation.ledger_sequence), str(entry.sequence)),
            "opened benchmark": (str(entry.benchmark_digest), report.benchmark_digest),
            "opened against": (f"v{entry.version}", f"v{report.generator_version}"),
        }
    faults = [f"{name} {said[:8]} instead of {right[:8]}" for name, (said, right) in wanted.items() if said != right]
    if entry is None:
        faults.insert(0, f"the ledger holds no opening for evaluation {report.evaluation_id[:8]}")
    return Check(
        name="sealed half opened for this",
        figure="; ".join(faults) or f"opening {confirmation.opening}, ledger entry {confirmation.ledger_sequence}",
        bound="an opening in the ledger, the same models and benchmark as in the report",
        outcome="invalid" if faults else "passed",
    )


def _items_sound(
    half: str, items: Sequence[ItemResult], judgement: Judgement | None, *, apart_from: Sequence[ItemResult] = ()
) -> Check:
    """Each item once, of this half, in every dimension; one score for everything is a broken evaluation."""
    faults = [*_item_faults("development" if half == "development" else "confirmation", items)]
    shared = {item.cluster for item in apart_from} & {item.cluster for item in items}
    if shared:
        faults.append(f"{len(shared)} sources are in both halves, e.g. {min(shared)}")
    if _judged(items) != _pairs(judgement):
        faults.append("the judged items are not the pairs of a judge that passed its probes")
    return Check(
        name=f"{half} items sound",
        figure="; ".join(faults) or f"{len(items)} items, each once, scores vary",
        bound="each item once for both models, one half, all dimensions, scores that vary",
        outcome="invalid" if faults else "passed",
    )


def _item_faults(half: Half, items: Sequence[ItemResult]) -> Iterator[str]:
    strangers = sum(item.half != half for item in items)
    if strangers:
        yield f"{strangers} items of the other half"
    ids = {item.item_id for item in items}
    if len(ids) < len(items):
        yield f"{len(items) - len(ids)} item ids occur twice"
    measured = {item.dimension for item in items}
    missing = [dimension for dimension in DIMENSIONS if dimension not in measured]
    if missing:
        yield f"no item measures {', '.join(missing)}"
    if len({item.candidate for item in items}) < 2:
        yield "every score of the candidate is the same"
    if len({item.generator for item in items}) < 2:
        yield "every score of the generator is the same"


def _judged(items: Sequence[ItemResult]) -> dict[str, tuple[float, float]]:
    return {item.item_id: (item.candidate, item.generator) for item in items if item.kind == JUDGED}


def _pairs(judgement: Judgement | None) -> dict[str, tuple[float, float]]:
    if judgement is None or not judgement.usable:
        return {}
    return {f"{JUDGED}-{pair.item_id}": (pair.candidate, pair.generator) for pair in judgement.pairs}


def _judge(name: str, judgement: Judgement) -> Check:
    """A judge that fails its probes is left out with all that it said; the rest of the verdict stands without it."""
    passed = sum(probe.passed for probe in judgement.probes)
    figure = f"{passed} of {len(judgement.probes)} probes, {len(judgement.pairs)} pairs ({judgement.judge})"
    return Check(
        name=name,
        figure=figure if judgement.usable else f"INVALID: {judgement.reason} ({judgement.judge})",
        bound="passes its probes before each use",
        outcome="passed" if judgement.usable else "left_out",
    )


def _recomputed(half: str, table: Table, said: EvaluationReport | Confirmation) -> Check:
    """What is reported must follow from the items."""
    candidate, generator = table.scores()
    pairs = [
        (getattr(reported, field), getattr(recomputed, field))
        for reported, recomputed in ((said.candidate, candidate), (said.generator, generator))
        for field in ("composite", *DIMENSIONS)
    ]
    pairs.append((said.difference, candidate.composite - generator.composite))
    off = round(max(abs(reported - recomputed) for reported, recomputed in pairs), 12)
    inside = (
        said.ci_low <= said.difference + COMPOSITE_TOLERANCE and said.difference <= said.ci_high + COMPOSITE_TOLERANCE
    )
    return Check(
        name=f"{half} scores recomputed",
        figure=f"off by {off:.1e}" if inside else f"{said.difference:+.4f} lies outside its own interval",
        bound=f"<= {COMPOSITE_TOLERANCE:.0e}",
        outcome="passed" if off <= COMPOSITE_TOLERANCE and inside else "invalid",
        value=off,
    )


def _enough_items(case: Case, half: str, items: Sequence[ItemResult]) -> Check:
    """Judged items come on top: they ask about the same answers again."""
    developing, wanted = half == "development", case.config.benchmark_samples
    least = math.ceil(wanted * HALF_SHARES_MIN["development" if developing else "confirmation"])
    count = sum(item.kind != JUDGED for item in items)
    clusters = (case.development if developing else case.sealed).clusters
    return Check(
        name=f"enough {half} items",
        figure=f"{count} items from {clusters} sources",
        bound=f">= {least} items (benchmark_samples {wanted}) from >= {CLUSTERS_MIN} sources",
        outcome="passed" if count >= least and clusters >= CLUSTERS_MIN else "invalid",
        value=count,
    )


def _telling_apart(report: EvaluationReport, *, sound: bool) -> Check | None:
    """Return the fault of a candidate that is the generator, or that nothing tells from it; None: they differ.

    The same weights are one model, whatever was scored. Two different checkpoints may well agree on every item that is
    right or wrong, so that alone holds. They never agree to the last digit in the likelihood of every general text:
    then one model was scored twice, its weights in other files.
    """
    weights = report.candidate_weights_sha256
    if weights is not None and weights == report.generator_weights_sha256:
        return _one_model(f"the candidate is the generator: both have the weights {weights[:8]}", "invalid")
    if not sound or any(item.candidate != item.generator for item in report.items):
        return None
    general = [item for item in report.general.items if item.kind != "knowledge"] if report.general else []
    if general and all(item.candidate == item.generator for item in general):
        return _one_model("the candidate is the generator: the same likelihood of every general text", "invalid")
    return _one_model("both models score the same on every item: no evidence", "hold")


def _one_model(figure: str, outcome: Outcome) -> Check:
    bound = "other weights, and an item on which they differ"
    return Check(name="models told apart", figure=figure, bound=bound, outcome=outcome)
