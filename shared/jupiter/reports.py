"""What an evaluation found, item by item: the file `report.json` of `evaluations/<domain>/<evaluation_id>/`.

Owns: the shape of the report, the weights of the composite score S = .40 A + .30 C + .30 K, and which items decide.
Does not know: how an answer is scored (evaluator), the intervals (`statistics`), what is concluded (the gate).

Both halves of the benchmark are reported. Prompts are chosen on the development half, so every figure of the report
(composites, per-dimension scores, difference, interval) is taken over the *confirmation* half alone: `deciding`.
Fill the figures with `statistics.summarise(items, seed=seed_of(evaluation_id, benchmark_digest))`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from jupiter.records import Record, digest_of

__all__ = [
    "DIMENSIONS",
    "DIMENSION_WEIGHTS",
    "Dimension",
    "EvaluationReport",
    "Half",
    "ItemResult",
    "PromptChoice",
    "Scores",
    "deciding",
    "seed_of",
]

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Dimension = Literal["accuracy", "coherence", "knowledge"]
Half = Literal["development", "confirmation"]
Score = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]

DIMENSIONS: tuple[Dimension, ...] = ("accuracy", "coherence", "knowledge")
# The customer's document: accuracy 40 %, coherence 30 %, domain knowledge 30 %.
DIMENSION_WEIGHTS: Mapping[Dimension, float] = {"accuracy": 0.40, "coherence": 0.30, "knowledge": 0.30}


class ItemResult(Record):
    """One item, answered by both models in the same run."""

    item_id: str
    dimension: Dimension
    kind: str
    cluster: str
    """The document group: items of one cluster are resampled together."""
    half: Half
    candidate: Score
    generator: Score


class Scores(Record):
    """The mean score per dimension and their weighted sum."""

    composite: Score
    accuracy: Score
    coherence: Score
    knowledge: Score

    def of(self, dimension: Dimension) -> float:
        """Return the score of one dimension."""
        return {"accuracy": self.accuracy, "coherence": self.coherence, "knowledge": self.knowledge}[dimension]


class PromptChoice(Record):
    """The prompt setting that did best on the development half, for one kind of item and one model."""

    template: int
    shots: int


class EvaluationReport(Record):
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


def deciding(items: Iterable[ItemResult]) -> tuple[ItemResult, ...]:
    """Return the confirmation items, ordered by id: the only ones a figure or a verdict may rest on."""
    return tuple(sorted((item for item in items if item.half == "confirmation"), key=lambda item: item.item_id))


def seed_of(evaluation_id: str, benchmark_digest: str) -> int:
    """Return the seed of an evaluation: fixed by what was compared, so nobody can draw again for a better one."""
    return int(digest_of("evaluation-seed", evaluation_id, benchmark_digest)[:8], 16)
