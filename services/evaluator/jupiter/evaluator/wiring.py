"""The one place where the evaluator's parts are put together.

Owns: who gets what. Does not know: what any part does.
"""

from __future__ import annotations

from jupiter.compute import ComputeLease
from jupiter.evaluator.benchmark import build_benchmark
from jupiter.evaluator.contestants import Contestants
from jupiter.evaluator.examination import ModelExaminer
from jupiter.evaluator.freezing import Freezer
from jupiter.evaluator.handlers import CHECKPOINT_HANDLERS, Deps
from jupiter.evaluator.sessions import run_sessions
from jupiter.service import Runtime, ServiceParts, Subscription

__all__ = ["setup"]


async def setup(runtime: Runtime) -> ServiceParts[Deps]:
    """Build everything the evaluator is made of."""
    config = runtime.config
    deps = Deps(
        runtime=runtime,
        contestants=Contestants(config.data_dir / "evaluator"),
        examiner=ModelExaminer(dtype=config.evaluator.dtype, device=config.evaluator.device),
        lease=ComputeLease.of(config),
    )
    freezer = Freezer(runtime=runtime, build=build_benchmark, run_sessions=run_sessions)
    # One checkpoint at a time over all instances: a second evaluator stands by.
    checkpoints = Subscription(channel="checkpoints", durable="evaluator", handlers=CHECKPOINT_HANDLERS)
    return ServiceParts(deps=deps, subscriptions=[checkpoints], background=[freezer.run])
