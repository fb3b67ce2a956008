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

    def count(self, shard: ShardCurated) -> None:
        """Count a shard that this process committed."""
        self._accepted.inc(shard.accepted)
        for reason, count in shard.dropped.items():
            self._dropped.labels(reason).inc(count)
        if shard.tokens:
            self._real_ratio.set(shard.real_tokens / shard.tokens)
