"""What an evaluation found, item by item: the file `report.json` of `evaluations/<domain>/<evaluation_id>/`.

Owns: the shape of report, confirmation and shadow judgement, and the weights of the composite score
S = .40 A + .30 C + .30 K.
Does not know: how an answer is scored (evaluator), the intervals (`statistics`), what is concluded (the gate).

A report holds the benchmark's *development* half, on which prompts are chosen too: its figures (composites, scores per
dimension, difference, interval) are taken over those items, and none of them promotes anybody. The *confirmation* half
is sealed. It is scored once the controller has spent an opening on the evaluation, and has figures of its own in
`Confirmation`. Both are filled by `statistics.summarise(items, seed=seed_of(evaluation_id, benchmark_digest))`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from jupiter.records import SharedRecord, digest_of

__all__ = [
    "CLUSTERS_MIN",
    "DIMENSIONS",
    "DIMENSION_WEIGHTS",
    "HALF_SHARES_MIN",
    "Confirmation",
    "Contamination",
    "Dimension",
    "EvaluationReport",
    "General",
    "GeneralItem",
    "GeneralKind",
    "Half",
    "ItemResult",
    "JudgeProbe",
    "JudgedPair",
    "Judgement",
    "PromptChoice",
    "Scores",
    "Shadow",
    "ShadowSide",
    "seed_of",
]

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Dimension = Literal["accuracy", "coherence", "knowledge"]
Half = Literal["development", "confirmation"]
Score = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]

DIMENSIONS: tuple[Dimension, ...] = ("accuracy", "coherence", "knowledge")
# The customer's document: accuracy 40 %, coherence 30 %, domain knowledge 30 %.
DIMENSION_WEIGHTS: Mapping[Dimension, float] = {"accuracy": 0.40, "coherence": 0.30, "knowledge": 0.30}
HALF_SHARES_MIN: Mapping[Half, float] = {"development": 0.15, "confirmation": 0.4}
"""Of `benchmark_samples`: with fewer items of a half no benchmark is frozen, and the gate concludes nothing.
A quarter and three quarters are aimed at; whole documents fall into one half, so either may come out smaller."""
CLUSTERS_MIN = 4
"""Of each half. Of fewer a bootstrap does not know its own tails, and a sign-flip test has no small p."""


class ItemResult(SharedRecord):
    """One item, answered by both models in the same run."""

    item_id: str
    dimension: Dimension
    kind: str
    cluster: str
    """The document group: items of one cluster are resampled together."""
    half: Half
    candidate: Score
    generator: Score


class Scores(SharedRecord):
    """The mean score per dimension and their weighted sum."""

    composite: Score
    accuracy: Score
    coherence: Score
    knowledge: Score

    def of(self, dimension: Dimension) -> float:
        """Return the score of one dimension."""
        return {"accuracy": self.accuracy, "coherence": self.coherence, "knowledge": self.knowledge}[dimension]


class PromptChoice(SharedRecord):
    """The prompt setting that did best on the development half, for one kind of item and one model."""

    template: int
    shots: int


GeneralKind = Literal["knowledge", "text", "code"]


class GeneralItem(SharedRecord):
    """One item of the general suite, answered by both models in the same run."""

    item_id: str
    kind: GeneralKind
    """`knowledge`: 1 when the right choice is the likeliest. `text`, `code`: bits per byte, lower is better."""
    bytes: int = Field(default=1, ge=1)
    """What bits per byte are weighted by."""
    candidate: float = Field(ge=0, allow_inf_nan=False)
    generator: float = Field(ge=0, allow_inf_nan=False)


class General(SharedRecord):
    """What the models can do besides the domain."""

    suite: str
    """Name and version of the suite."""
    suite_digest: Sha256
    items: tuple[GeneralItem, ...] = Field(min_length=1)


class JudgeProbe(SharedRecord):
    """One question whose right answer is known, asked of the judge before it is believed."""

    name: str
    passed: bool
    detail: str


class JudgedPair(SharedRecord):
    """Both models' answers to one item, judged in both orders."""

    item_id: str
    cluster: str
    forward: Literal["candidate", "generator", "tie"]
    """The winner when the candidate's answer stood first."""
    swapped: Literal["candidate", "generator", "tie"]
    candidate: Score
    """1 won in both orders, ½ tie or disagreement, 0 lost in both; ¼ and ¾ won or lost once, tied once."""
    generator: Score


class Judgement(SharedRecord):
    """What the judge said, and whether it may be believed."""

    judge: str
    """Which judge: endpoint and model, or the local directory."""
    usable: bool
    reason: str = ""
    """Why it is not usable: the probe that it failed."""
    probes: tuple[JudgeProbe, ...] = ()
    pairs: tuple[JudgedPair, ...] = ()
    failed_pairs: int = Field(default=0, ge=0)
    """Pairs that were asked and got no verdict; they are not among `pairs`."""


class Confirmation(SharedRecord):
    """Both models on the sealed half, opened for one evaluation: the file `confirmation.json` beside the report."""

    schema_version: Literal[1] = 1
    evaluation_id: Sha256
    opening: int = Field(ge=1)
    """k: which opening against this generator it was, on whatever benchmark."""
    ledger_sequence: int = Field(ge=1)
    """The ledger entry that spent it."""
    benchmark_digest: Sha256
    checkpoint_manifest_sha256: Sha256
    generator_manifest_sha256: Sha256
    items: tuple[ItemResult, ...] = Field(min_length=1)
    candidate: Scores
    generator: Scores
    difference: float = Field(ge=-1, le=1)
    ci_low: float = Field(ge=-1, le=1)
    ci_high: float = Field(ge=-1, le=1)
    judge: Judgement | None = None
    """Of these items' answers, after the judge's probes were run again; None where no judge is configured."""
    generated_at: str
    wall_s: float = Field(ge=0)


class ShadowSide(SharedRecord):
    """One version's batch on the shared items, judged by the curator."""

    manifest_sha256: Sha256
    """The batch that was judged."""
    items: int = Field(ge=1)
    samples: int = Field(ge=0)
    accepted: tuple[bool, ...]
    """By item of the request, in order; False where none was made or it was refused."""
    dropped: Mapping[str, int] = Field(default_factory=dict)
    """Refused samples by reason, unusable generations included as `unusable_<reason>`."""
    grounding: float = Field(default=0.0, ge=0, le=1)
    """Mean grounding share of the samples made."""
    duplicates: float = Field(default=0.0, ge=0, le=1)
    """Share of the samples made that duplicate others or earlier data."""
    diversity: Mapping[str, float] = Field(default_factory=dict)


class Shadow(SharedRecord):
    """The candidate as a generator, beside the incumbent on the same items: the details of the judgement's manifest."""

    schema_version: Literal[1] = 1
    evaluation_id: Sha256
    batch_id: Sha256
    clusters: tuple[str, ...]
    """The document of each item."""
    candidate: ShadowSide
    incumbent: ShadowSide
    real: Mapping[str, float] = Field(default_factory=dict)
    """The real data's own diversity figures."""
    failed: str = ""
    """Why the candidate could not generate at all; its side then has no samples."""


class Contamination(SharedRecord):
    """How much of the benchmark lies in the data that the checkpoint was trained on."""

    benchmark_digest: Sha256
    """What was looked for."""
    shards: int = Field(ge=0)
    """Shards that the checkpoint was trained on."""
    uncounted: int = Field(default=0, ge=0)
    """Of them: nobody knows, for they are gone, were made without counting, or counted against another benchmark."""
    samples: int = Field(default=0, ge=0)
    """Samples in the others that overlap with the benchmark, or with what belongs to it (worked examples and the
    general suite)."""
    items: Mapping[str, int] = Field(default_factory=dict)
    """Items that they overlap with, by half; `other` are of neither."""


class EvaluationReport(SharedRecord):
    """A checkpoint against the generator of the day, on the same items in the same run."""

    schema_version: Literal[1] = 1
    evaluation_id: Sha256
    domain: str
    checkpoint_id: Sha256
    run: str
    step: int = Field(ge=0)
    checkpoint_manifest_key: str
    checkpoint_manifest_sha256: Sha256
    generator_version: int = Field(ge=1)
    generator_manifest_sha256: Sha256
    candidate_weights_sha256: Sha256 | None = None
    """Over the digests of its weight files. None, both: the report is older than the figure, or of no stored models."""
    generator_weights_sha256: Sha256 | None = None
    benchmark_digest: Sha256
    benchmark_manifest_sha256: Sha256 | None = None
    seed: int
    """Of the models' own sampling and of the intervals; every draw follows from it."""
    candidate_prompts: Mapping[str, PromptChoice] = Field(default_factory=dict)
    generator_prompts: Mapping[str, PromptChoice] = Field(default_factory=dict)
    items: tuple[ItemResult, ...] = Field(min_length=1)
    candidate: Scores
    generator: Scores
    difference: float = Field(ge=-1, le=1)
    """Composite of the candidate less composite of the generator."""
    ci_low: float = Field(ge=-1, le=1)
    """Two-sided 95 % interval of the difference, bootstrapped over clusters."""
    ci_high: float = Field(ge=-1, le=1)
    generated_at: str
    """RFC 3339, UTC."""
    wall_s: float = Field(ge=0)
    figures: Mapping[str, Any] = Field(default_factory=dict)
    """Reported, not decided on: bits per byte, seconds per model, sandbox outcomes."""
    general: General | None = None
    judge: Judgement | None = None
    confirmation: Confirmation | None = None
    """Put in by the controller once the sealed half was opened; not in `report.json` itself."""
    shadow: Shadow | None = None
    """Likewise, once the curator judged the shadow batch."""
    contamination: Contamination | None = None
    """Likewise, always. None only where a report is of no training run: made of plain lists."""


def seed_of(evaluation_id: str, benchmark_digest: str) -> int:
    """Return the seed of an evaluation: fixed by what was compared, so nobody can draw again for a better one."""
    return int(digest_of("evaluation-seed", evaluation_id, benchmark_digest)[:8], 16)
