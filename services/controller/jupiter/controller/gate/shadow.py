"""The shadow batch: is the candidate as good a generator as it is an answerer?

Owns: how far it may fall behind the incumbent in what the curator accepts, in grounding, duplicates and diversity.
Does not know: how a batch is judged (the curator).

Worse beyond a bound is HOLD, for one batch says little for certain; REJECT only for a candidate of whose work nothing
is accepted. A batch that proves nothing, because the incumbent's own was hardly accepted, is HOLD and never a pass.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

from jupiter.controller.gate.case import Case
from jupiter.controller.gate.verdict import Check, Outcome
from jupiter.reports import Shadow, ShadowSide
from jupiter.statistics import Bootstrapped, bootstrap_ratio

__all__ = ["shadow_checks"]

LEVEL = 0.90
ACCEPTED_MIN = 5
"""Accepted samples of the incumbent below which a comparison says nothing."""
DISTANCES = ("distinct_1", "distinct_2", "distinct_4", "compression_ratio", "self_similarity", "words_mean")
RARE_BUCKETS = ("once", "2_to_4")
COVERAGE_DROP_MAX = 0.10
"""Largest relative loss in coverage of the real data's rare words (DESIGN §9), where noise alone is smaller."""


def shadow_checks(case: Case, shadow: Shadow) -> Iterator[Check]:
    """Yield the checks; of a candidate that generated nothing only that."""
    fault = _fault(case, shadow)
    if fault:
        yield Check(
            name="shadow batch sound",
            figure=fault,
            bound="both batches, item for item, of this evaluation",
            outcome="invalid",
        )
        return
    if shadow.failed:
        yield Check(
            name="generates at all", figure=shadow.failed, bound="a batch on the incumbent's items", outcome="hold"
        )
        return
    yield _comparable(shadow)
    yield _acceptance(case, shadow)
    if any(shadow.candidate.accepted) and sum(shadow.incumbent.accepted) >= ACCEPTED_MIN:
        yield _grounding(case, shadow)
        yield _duplicates(case, shadow)
        yield _diversity(case, shadow)


def _fault(case: Case, shadow: Shadow) -> str:
    if shadow.evaluation_id != case.report.evaluation_id:
        return f"it is about evaluation {shadow.evaluation_id[:8]}"
    items = len(shadow.clusters)
    sides = [shadow.candidate] if shadow.failed else [shadow.candidate, shadow.incumbent]
    if not items or any(len(side.accepted) != items or side.items != items for side in sides):
        return f"{items} items, of which {' and '.join(str(len(side.accepted)) for side in sides)} were judged"
    if not shadow.failed and shadow.candidate.manifest_sha256 == shadow.incumbent.manifest_sha256:
        return "one and the same batch on both sides"
    return ""


def _comparable(shadow: Shadow) -> Check:
    accepted = sum(shadow.incumbent.accepted)
    return Check(
        name="shadow batch tells",
        figure=f"{accepted} of {shadow.incumbent.items} items accepted of the generator",
        bound=f">= {ACCEPTED_MIN}",
        outcome="passed" if accepted >= ACCEPTED_MIN else "hold",
        value=accepted,
    )


def _acceptance(case: Case, shadow: Shadow) -> Check:
    """Resampled over the documents: items of one document are accepted or refused together."""
    drawn = _by_document(shadow, seed=case.seed)
    candidate, incumbent = (fmean(side.accepted) for side in (shadow.candidate, shadow.incumbent))
    lower, least = drawn.lower(LEVEL), -case.config.acceptance_loss_max
    useless = not any(shadow.candidate.accepted) and sum(shadow.incumbent.accepted) >= ACCEPTED_MIN
    outcome: Outcome = "reject" if useless else "passed" if lower >= least else "hold"
    dropped = max(shadow.candidate.dropped.items(), key=lambda pair: (pair[1], pair[0]), default=None)
    why = f"; most refused for {dropped[0]} ({dropped[1]})" if dropped and outcome != "passed" else ""
    return Check(
        name="shadow acceptance",
        figure=f"{candidate:.1%} of {len(shadow.clusters)} items accepted, the generator's {incumbent:.1%}; "
        f"at least {lower:+.4f}{why}",
        bound=f"90 % lower bound of the difference >= {least:+.4f}",
        outcome=outcome,
        value=round(candidate - incumbent, 9),
    )


def _by_document(shadow: Shadow, *, seed: int) -> Bootstrapped:
    differences: dict[str, list[float]] = defaultdict(list)
    for document, candidate, incumbent in zip(
        shadow.clusters, shadow.candidate.accepted, shadow.incumbent.accepted, strict=True
    ):
        differences[document].append(float(candidate) - float(incumbent))
    grouped = [differences[document] for document in sorted(differences)]
    return bootstrap_ratio([math.fsum(group) for group in grouped], [float(len(group)) for group in grouped], seed=seed)


def _grounding(case: Case, shadow: Shadow) -> Check:
    change, least = shadow.candidate.grounding - shadow.incumbent.grounding, -case.config.grounding_loss_max
    return Check(
        name="shadow grounding",
        figure=f"{shadow.candidate.grounding:.4f}, the generator's {shadow.incumbent.grounding:.4f}",
        bound=f"difference >= {least:+.4f}",
        outcome="passed" if round(change - least, 9) >= 0 else "hold",
        value=round(change, 9),
    )


def _duplicates(case: Case, shadow: Shadow) -> Check:
    change, most = shadow.candidate.duplicates - shadow.incumbent.duplicates, case.config.duplicates_rise_max
    return Check(
        name="shadow duplicates",
        figure=f"{shadow.candidate.duplicates:.4f}, the generator's {shadow.incumbent.duplicates:.4f}",
        bound=f"difference <= {most:+.4f}",
        outcome="passed" if round(change - most, 9) <= 0 else "hold",
        value=round(change, 9),
    )


def _diversity(case: Case, shadow: Shadow) -> Check:
    """Not further from the real data's own figures than the incumbent, in either direction."""
    candidate, incumbent = shadow.candidate, shadow.incumbent
    missing = [name for name, side in (("candidate", candidate), ("generator", incumbent)) if not _measured(side)]
    faults = [] if missing else [*_further(candidate, incumbent, case), *_less_covered(candidate, incumbent, case)]
    if missing:
        figure = f"not measured for the {' and the '.join(missing)}: too little text was accepted"
    else:
        figure = "; ".join(faults) or f"{len(DISTANCES) + len(RARE_BUCKETS)} figures, none further away"
    return Check(
        name="shadow diversity",
        figure=figure,
        bound=f"<= {case.config.diversity_sd_max:g} SD further from the real data than the generator",
        outcome="hold" if missing or faults else "passed",
    )


def _measured(side: ShadowSide) -> bool:
    return all(f"{group}.{name}" in side.diversity for group in ("synthetic", "real") for name in DISTANCES)


def _further(candidate: ShadowSide, incumbent: ShadowSide, case: Case) -> Iterator[str]:
    for name in DISTANCES:
        ours, theirs = (_distance(side.diversity, name) for side in (candidate, incumbent))
        noise = _noise("real_sd", name, (candidate, incumbent))
        excess = abs(ours) - abs(theirs)
        if excess > case.config.diversity_sd_max * noise:
            yield f"{name} lies {ours:+.4f} from the real data's, the generator's {theirs:+.4f} ({_sds(excess, noise)})"


def _less_covered(candidate: ShadowSide, incumbent: ShadowSide, case: Case) -> Iterator[str]:
    """A batch whose passages hold no such word has no figure for it."""
    for bucket in RARE_BUCKETS:
        name = f"coverage.{bucket}"
        if name not in candidate.diversity or name not in incumbent.diversity:
            continue
        ours, theirs = candidate.diversity[name], incumbent.diversity[name]
        noise = _noise("coverage_sd", bucket, (candidate, incumbent))
        if theirs - ours > max(COVERAGE_DROP_MAX * theirs, case.config.diversity_sd_max * noise):
            words = bucket.replace("_", " ")
            yield f"of words that real passages hold {words} {ours:.1%} are used, the generator's {theirs:.1%}"


def _distance(figures: Mapping[str, float], name: str) -> float:
    return figures[f"synthetic.{name}"] - figures[f"real.{name}"]


def _noise(group: str, name: str, sides: Sequence[ShadowSide]) -> float:
    """Return the standard deviation of the difference of two batches."""
    return math.hypot(*(side.diversity.get(f"{group}.{name}", 0.0) for side in sides))


def _sds(excess: float, noise: float) -> str:
    return f"{excess / noise:.1f} SD further" if noise else "further"
