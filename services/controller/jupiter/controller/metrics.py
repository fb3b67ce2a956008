"""The controller's own metrics.

Owns: their names. Does not know: how they are served (`health`), nor when they change.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge

__all__ = ["Metrics"]


class Metrics:
    """Made once per process, in its registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.diversity_alarm = Gauge(
            "jupiter_diversity_alarm",
            "1 while a diversity alarm is open: promotions pause and the real ratio is raised.",
            registry=registry,
        )
        self.diversity_excess = Gauge(
            "jupiter_diversity_excess",
            "How much worse than at the beginning a figure of the newest batches is, as a share of its bound; above 1: "
            "past it.",
            ["figure"],
            registry=registry,
        )
        self.sealed_openings = Gauge(
            "jupiter_sealed_openings",
            "Openings of the sealed half against the live version so far.",
            registry=registry,
        )
        self.evaluations_unsettled = Gauge(
            "jupiter_evaluations_unsettled",
            "Evaluations whose verdict is not settled yet.",
            registry=registry,
        )
