"""What the trainer reacts to.

Owns: the service's parts. Does not know: how training works.

The trainer consumes nothing as work: it reads `shards.<domain>` and `withdrawals.<domain>` as logs, with its place in
them inside the checkpoint, so the table of other services is one background task here.

    ShardCurated                            ->  CheckpointSaved
    VersionQuarantined, DocumentForgotten   ->  left out from the next round on
    RewindRequested                         ->  back to the checkpoint it names, under another run name
"""

from __future__ import annotations

from typing import Any

import transformers.utils.logging

from jupiter.compute import ComputeLease
from jupiter.service import Runtime, ServiceParts
from jupiter.trainer.metrics import Metrics
from jupiter.trainer.session import Session
from jupiter.trainer.training import run

__all__ = ["parts"]


def parts(runtime: Runtime) -> ServiceParts[Session]:
    """Build everything the trainer is made of."""
    huggingface: Any = transformers.utils.logging
    huggingface.disable_progress_bar()  # our output is a log
    session = Session(runtime, lease=ComputeLease.of(runtime.config), metrics=Metrics(runtime.telemetry.registry))
    return ServiceParts(deps=session, background=[lambda: run(session)])
