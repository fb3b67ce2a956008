"""What the controller's handlers, background tasks and API work with.

Owns: the bundle. Does not know: who uses what of it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Literal

from jupiter.blobs import Blobs
from jupiter.bus import Bus
from jupiter.config import ClusterConfig, DomainConfig
from jupiter.controller.contamination import Contaminations
from jupiter.controller.diversity import Figure
from jupiter.controller.evidence import Evidence, LedgerView
from jupiter.controller.following import Following
from jupiter.controller.metrics import Metrics
from jupiter.controller.projection import Projection
from jupiter.service import Runtime

__all__ = ["Deps", "Stage"]


@dataclass(frozen=True)
class Stage:
    """How far an evaluation is, for people."""

    name: Literal["deciding", "queued", "confirmation", "shadow"]
    detail: str


@dataclass(kw_only=True)
class Deps:
    """Built once, by `build`."""

    runtime: Runtime
    domain: DomainConfig
    state: Projection
    following: Following
    evidence: Evidence
    contaminations: Contaminations
    ledger: LedgerView
    flipping: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while this process writes the ledger or deletes checkpoints; other controllers lose at the create."""
    metrics: Metrics
    waits_for: tuple[str, ...] = ()
    """What the metronome waited for when it planned last."""
    stages: dict[str, Stage] = field(default_factory=dict)
    """evaluation_id -> what the unsettled evaluation waited for when it was looked at last."""
    diversity: tuple[Figure, ...] = ()
    """The figures of the newest shards beside those of the first, when the breaker looked last."""
    letters_seen: int = 0
    """The newest dead letter that was looked at: requests and batches in those up to it are voided."""
    given_up: dict[tuple[str, Literal["confirmation", "shadow"]], str] = field(default_factory=dict)
    """(evaluation_id, what was asked for) -> why no answer will come: the request lies in the dead letters."""

    @property
    def config(self) -> ClusterConfig:
        return self.runtime.config

    @property
    def bus(self) -> Bus:
        return self.runtime.bus

    @property
    def blobs(self) -> Blobs:
        return self.runtime.blobs

    @classmethod
    def build(cls, runtime: Runtime, domain: DomainConfig) -> Deps:
        """Return deps with an empty projection; `following.catch_up` fills it."""
        state = Projection(domain=runtime.domain)
        return cls(
            runtime=runtime,
            domain=domain,
            state=state,
            following=Following(runtime.bus, state),
            evidence=Evidence(runtime.blobs, runtime.domain),
            contaminations=Contaminations(runtime.blobs, runtime.domain),
            ledger=LedgerView(runtime.blobs, runtime.domain),
            metrics=Metrics(runtime.telemetry.registry),
        )
