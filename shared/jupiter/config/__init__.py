"""Configuration: `ClusterConfig` (one per deployment) and `DomainConfig` (one per domain).

Layers, later wins: defaults, `config/cluster.yaml`, overlay files (`--config config/demo.yaml`), `JUPITER_*`
environment (`JUPITER_TRAINER__LEARNING_RATE=1e-4`), `--set` overrides. Validated once; an unknown key is an error that
suggests the right one. `loading` does it.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from jupiter.config.sections import (
    ControllerSection,
    CuratorSection,
    DiversitySection,
    EvaluatorSection,
    GeneratorSection,
    JudgeSection,
    LocalSection,
    NatsSection,
    S3Section,
    Section,
    SelfImprovementSection,
    TelemetrySection,
    TrainerSection,
)

__all__ = ["ClusterConfig", "DomainConfig", "TaskMix"]


class ClusterConfig(Section):
    domain: str = Field(default="python_stdlib", pattern=r"^[a-z][a-z0-9_]{0,62}$")
    """The domain this deployment works on; `config/domains/<domain>.yaml` describes it."""
    instance: str = ""
    """This process's name among its kind (`JUPITER_INSTANCE=generator-1`); empty: host name and process id. A name that
    survives a restart keeps one line per instance in `status`."""
    data_dir: Path = Path(".jupiter")
    """Local state: embedded servers' data, generator versions, caches."""
    nats: NatsSection = NatsSection()
    s3: S3Section = S3Section()
    telemetry: TelemetrySection = TelemetrySection()
    self_improvement: SelfImprovementSection = SelfImprovementSection()
    generator: GeneratorSection = GeneratorSection()
    curator: CuratorSection = CuratorSection()
    trainer: TrainerSection = TrainerSection()
    evaluator: EvaluatorSection = EvaluatorSection()
    judge: JudgeSection = JudgeSection()
    diversity: DiversitySection = DiversitySection()
    controller: ControllerSection = ControllerSection()
    local: LocalSection = LocalSection()


class TaskMix(Section):
    task: str
    """A task type of the generator."""
    weight: float = Field(default=1.0, gt=0)


class DomainConfig(Section):
    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")
    description: str
    """One sentence for people: `jupiter up` says it."""
    source: str | None = None
    """A built-in document source (`python_stdlib`) that `up` publishes at the first start."""
    tasks: tuple[TaskMix, ...] = Field(min_length=1)
    audiences: tuple[str, ...] = Field(default=("a beginner", "an experienced engineer"), min_length=1)
    difficulties: tuple[str, ...] = Field(default=("basic", "advanced"), min_length=1)
    benchmark_kinds: tuple[str, ...] = ()
    """Item kinds of the benchmark; empty: every kind that the held-out documents allow."""
