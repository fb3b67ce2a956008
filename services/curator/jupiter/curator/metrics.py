"""The curator's own Prometheus metrics: what became of every sample, and the mix of the newest shard.

Owns: their names. Does not know: how they are served (`jupiter.health`).
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from jupiter.events import ShardCurated

__all__ = ["Metrics"]


class Metrics:
    """Counts since the process started; the totals of the run stand in the shards' manifests."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._accepted = Counter("jupiter_curator_accepted", "Synthetic samples put into shards.", registry=registry)
        self._dropped = Counter("jupiter_curator_dropped", "Synthetic samples dropped.", ["reason"], registry=registry)
        self._real_ratio = Gauge(
            "jupiter_curator_real_ratio", "Real tokens / all tokens of the newest shard.", registry=registry
        )
        self._real_ratio_target = Gauge(
            "jupiter_curator_real_ratio_target", "Real share that the newest shard was mixed for.", registry=registry
        )
        self._alarm = Gauge(
            "jupiter_curator_diversity_alarm", "1 while a diversity alarm raises the real share.", registry=registry
        )
        self._diversity = Gauge(
            "jupiter_curator_diversity",
            "Figures of the newest shard's synthetic part, and of the real data beside it (`real.`, `real_sd.`).",
            ["figure"],
            registry=registry,
        )

    def count(self, shard: ShardCurated, *, real_ratio_target: float, alarm: bool) -> None:
        """Count a shard that this process committed."""
        self._accepted.inc(shard.accepted)
        for reason, count in shard.dropped.items():
            self._dropped.labels(reason).inc(count)
        self._real_ratio_target.set(real_ratio_target)
        self._alarm.set(alarm)
        self._diversity.clear()  # a shard with too few words has no figures of texts; the last one's are not its own
        for figure, value in shard.diversity.items():
            self._diversity.labels(figure).set(value)
        if shard.tokens:
            self._real_ratio.set(shard.real_tokens / shard.tokens)
