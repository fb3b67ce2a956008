"""What the API answers with.

Owns: the response and request models, which OpenAPI documents. Does not know: how they are filled (`progress`, `api`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from jupiter.controller.diversity import Figure
from jupiter.controller.gate import Verdict
from jupiter.ledger import LedgerEntry
from jupiter.reports import Confirmation, EvaluationReport, Shadow

__all__ = [
    "AccountingView",
    "AlarmView",
    "ConfirmationView",
    "DeadLetterView",
    "DiversityView",
    "DocumentAnswer",
    "ErrorBody",
    "ErrorView",
    "EvaluationDetail",
    "EvaluationView",
    "GeneratorView",
    "HistoryView",
    "NextEvaluation",
    "NotEvaluatedView",
    "OriginalsView",
    "PromoteBody",
    "RecordView",
    "ReplayAnswer",
    "RollbackBody",
    "SampleView",
    "SealedHalfView",
    "ShadowView",
    "StageView",
    "StatusView",
    "VersionView",
]


class View(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ErrorView(View):
    code: Literal["invalid", "unauthorized", "forbidden", "not_found", "conflict", "refused", "unavailable"]
    message: str
    """What was wrong, what was seen, what to do."""


class ErrorBody(View):
    """The body of every answer that is not 2xx."""

    error: ErrorView


class StageView(View):
    """One stage of the cycle, as its newest status tells."""

    name: Literal["documents", "benchmark", "generation", "curation", "training", "evaluation"]
    state: str
    """`absent` when no service of this stage has reported yet."""
    detail: str = ""
    done: float | None = None
    total: float | None = None
    unit: str = ""
    rate_per_s: float | None = None
    eta_s: float | None = None
    """Seconds until `done` reaches `total` at the present rate."""
    instances: tuple[str, ...] = ()
    updated_at: str | None = None
    figures: Mapping[str, Any] = Field(default_factory=dict)


class GeneratorView(View):
    version: int
    previous_version: int | None
    ledger_sequence: int
    action: str
    since: str
    served_by: tuple[str, ...]
    """Instances that attested this version."""
    instances: Mapping[str, int]
    """Instance -> version it attested last."""


class NextEvaluation(View):
    step: int
    """The step at which the trainer saves the next checkpoint."""
    current_step: int
    eta_s: float | None


class AccountingView(View):
    """requests = batches + voided + open_requests; batches = shards + open_batches + buried_batches; lost is 0."""

    requests: int
    batches: int
    voided: int
    open_requests: int
    shards: int
    open_batches: int
    buried_batches: int
    """In the dead letters, or withdrawn."""
    lost: int
    """Acked by somebody, and no event tells what became of it."""


class ConfirmationView(View):
    """What the sealed half said."""

    opening: int
    """k: error is spent by it."""
    items: int
    candidate_score: float
    generator_score: float
    difference: float


class ShadowView(View):
    """How the candidate did as a generator, on the same items as the incumbent."""

    items: int
    candidate_accepted: int
    incumbent_accepted: int


class EvaluationView(View):
    """One evaluation in a line; the number is the epoch. Its scores are those of the development half."""

    epoch: int
    evaluation_id: str
    checkpoint_id: str
    run: str
    step: int
    generator_version: int
    items: int
    candidate_score: float
    generator_score: float
    difference: float
    ci_low: float
    ci_high: float
    decision: str | None
    """None while the gate has not decided."""
    reasons: tuple[str, ...]
    stage: Literal["deciding", "queued", "confirmation", "shadow", "settled"]
    """What it waits for; `queued`: until another evaluation is through the sealed half."""
    stage_detail: str = ""
    confirmation: ConfirmationView | None = None
    shadow: ShadowView | None = None


class NotEvaluatedView(View):
    """A checkpoint that could not be evaluated: its verdict is INVALID."""

    checkpoint_id: str
    run: str
    step: int
    evaluation_id: str
    """Under which the verdict stands."""
    reasons: tuple[str, ...]


class SealedHalfView(View):
    """How much of the benchmark's sealed half is spent."""

    openings: int
    """Against whatever version."""
    openings_max: int
    """`self_improvement.sealed_openings_max`: from there on nothing is promoted on this benchmark."""


class AlarmView(View):
    """A diversity alarm that is open: promotions pause, and the real ratio is raised."""

    shard_id: str
    """The shard that tripped it."""
    generator_version: int
    alarms: tuple[str, ...]
    """Figure, value and bound of each."""


class StatusView(View):
    domain: str
    time: str
    mode: str
    generator: GeneratorView | None
    stages: tuple[StageView, ...]
    next_evaluation: NextEvaluation | None
    waits_for: tuple[str, ...]
    accounting: AccountingView
    documents_training: int
    documents_held_out: int
    samples_generated: int
    samples_accepted: int
    tokens: int
    """Tokens in shards."""
    real_tokens: int
    dropped: Mapping[str, int]
    """Reason -> rejected samples, over all shards."""
    batches_by_version: Mapping[int, int]
    shards_ahead: int
    """Shards that the trainer has not consumed yet."""
    evaluations: int
    last_evaluation: EvaluationView | None
    not_evaluated: tuple[NotEvaluatedView, ...]
    """Oldest first; a dead letter that is replayed and succeeds takes its checkpoint out."""
    pending_approval: tuple[str, ...]
    """Evaluations found better that wait for `promote` (mode `approve`)."""
    refused: Mapping[str, str]
    """Evaluation -> why its promotion could not be carried out."""
    dead_letters: int
    """Up to 1,000; the list has the rest."""
    openings: int
    """Openings of the sealed half against the live version so far."""
    sealed_half: SealedHalfView | None
    """None before a benchmark is frozen."""
    diversity_alarm: AlarmView | None
    diversity: tuple[Figure, ...]
    """How varied the newest batches are beside the first ones; empty while there are too few to say."""
    plateau: tuple[str, ...]
    """The finding, then what would lift it, a line each; empty while scores rise or it is too early to say."""


class DiversityView(View):
    """One shard's figures: of the samples (`synthetic.`, `coverage.`, shares) and of the real data (`real.`)."""

    shard_id: str
    batch_id: str
    generator_version: int
    figures: Mapping[str, float]


class VersionView(View):
    version: int
    live: bool
    checkpoint_id: str | None
    evaluation_id: str | None
    step: int | None
    manifest_key: str
    manifest_sha256: str
    first_live: str
    served_by: tuple[str, ...]


class HistoryView(View):
    entries: tuple[LedgerEntry, ...]
    live: LedgerEntry | None
    """What is live now, or was at `live_at`."""


class EvaluationDetail(View):
    evaluation: EvaluationView
    verdict: Verdict | None
    refusal: str | None
    """Why its verdict is not acted on, or cannot be read."""
    report: EvaluationReport | None
    """With confirmation and shadow once it is settled; None where it cannot be read, which the verdict then says."""


class OriginalsView(View):
    """What the evaluator and the curator stored, read again under the digests that their events name.

    None: the evaluation never came so far, or it cannot be read any more, and `faults` says so.
    """

    report: EvaluationReport | None
    confirmation: Confirmation | None
    shadow: Shadow | None
    faults: tuple[str, ...]


class RecordView(View):
    """What `jupiter replay` recomputes a verdict from: the stored bytes, unchanged, and what they must agree with."""

    evaluation_id: str
    inputs_base64: str | None
    """`inputs.json`: report, history and configuration. None: nothing readable was there to decide on (INVALID)."""
    verdict_base64: str
    """`verdict.json`."""
    verdict_sha256: str | None
    """As the event told it; None where that is older than the field."""
    originals: OriginalsView


class SampleView(View):
    accepted: bool
    shard_id: str
    reason: str | None = None
    filter: str | None = None
    sample: Mapping[str, Any]


class DeadLetterView(View):
    sequence: int
    subject: str
    origin_sequence: int
    service: str
    reason: str
    attempts: int
    time: str
    data: str
    """The message's bytes as text; what is not UTF-8 is replaced."""


class ReplayAnswer(View):
    sequence: int
    """Where the message lies now, in its own stream."""


class DocumentAnswer(View):
    subject: str
    sequence: int
    duplicate: bool


class PromoteBody(View):
    """Name one of `version` (known to the ledger), `evaluation_id` or `checkpoint_id`."""

    version: int | None = Field(default=None, ge=1)
    evaluation_id: str | None = None
    checkpoint_id: str | None = None
    expected_version: int = Field(ge=1)
    """The version you saw live; another one is answered with 409."""
    actor: str = Field(default="api", min_length=1, max_length=200)
    reason: str = Field(default="by hand", min_length=1, max_length=1_000)
    force: bool = False
    """Promote although the gate did not say PROMOTE, or has not been asked. Recorded in the ledger's reason."""


class RollbackBody(View):
    version: int | None = Field(default=None, ge=1)
    """Default: the version that the live one was promoted over."""
    expected_version: int = Field(ge=1)
    actor: str = Field(default="api", min_length=1, max_length=200)
    reason: str = Field(default="by hand", min_length=1, max_length=1_000)
    quarantine: bool = False
    """Withdraw the batches that the version left behind has made: no later shard holds or trains on them."""
    rewind: bool = False
    """With `quarantine`: the trainer goes back to its last checkpoint that had none of them."""
