"""The trainer's Prometheus metrics.

Owns: their names. Does not know: when they change.
"""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge

from jupiter.trainer.student import StepOutcome

__all__ = ["Metrics"]


class Metrics:
    """Registered once per process, in the service's own registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.loss = Gauge("jupiter_trainer_loss_nats", "Mean loss per learned token, last step.", registry=registry)
        self.gradient_norm = Gauge(
            "jupiter_trainer_gradient_norm", "Norm of the last step's gradient before clipping.", registry=registry
        )
        self.learning_rate = Gauge("jupiter_trainer_learning_rate", "Of the last step.", registry=registry)
        self.step = Gauge("jupiter_trainer_step", "Optimizer steps of the run.", registry=registry)
        self.tokens = Counter("jupiter_trainer_tokens", "Tokens trained on by this process.", registry=registry)
        self.tokens_per_s = Gauge("jupiter_trainer_tokens_per_second", "While computing.", registry=registry)
        self.shard_sequence = Gauge(
            "jupiter_trainer_shard_sequence", "Offset in the stream of shards.", registry=registry
        )
        self.samples = Counter(
            "jupiter_trainer_samples",
            "Samples of shards consumed, by what happened to them.",
            ["outcome"],
            registry=registry,
        )
        self.checkpoints = Counter("jupiter_trainer_checkpoints", "Checkpoints committed.", registry=registry)
        self.diverged = Gauge(
            "jupiter_trainer_diverged", "1 when training stopped on a diverging loss.", registry=registry
        )

    def stepped(self, outcome: StepOutcome, *, step: int, seconds: float) -> None:
        """Note one optimizer step."""
        self.loss.set(outcome.loss)
        self.gradient_norm.set(outcome.gradient_norm)
        self.learning_rate.set(outcome.learning_rate)
        self.step.set(step)
        self.tokens.inc(outcome.tokens)
        self.tokens_per_s.set(outcome.tokens / seconds)

    def consumed(self, counts: Mapping[str, int], *, sequence: int) -> None:
        """Note one shard taken up."""
        self.shard_sequence.set(sequence)
        for outcome, count in counts.items():
            self.samples.labels(outcome=outcome).inc(count)
