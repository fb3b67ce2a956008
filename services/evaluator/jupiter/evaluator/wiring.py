"""The one place where the evaluator's parts are put together.

Owns: who gets what. Does not know: what any part does.
"""

from __future__ import annotations

from functools import partial

from jupiter.compute import ComputeLease
from jupiter.config import DomainConfig
from jupiter.config.loading import load_domain
from jupiter.errors import ConfigError
from jupiter.evaluator.benchmark import build_benchmark
from jupiter.evaluator.building import Builder
from jupiter.evaluator.contestants import Contestants
from jupiter.evaluator.counting import Counting
from jupiter.evaluator.deps import Deps
from jupiter.evaluator.examination import ModelExaminer
from jupiter.evaluator.freezing import Freezer
from jupiter.evaluator.handlers import BENCHMARK_HANDLERS, CHECKPOINT_HANDLERS, CONFIRMATION_HANDLERS
from jupiter.evaluator.items import item_kinds
from jupiter.evaluator.judge import open_judge
from jupiter.evaluator.sessions import run_sessions
from jupiter.service import Runtime, ServiceParts, Subscription

__all__ = ["chosen_kinds", "setup"]


async def setup(runtime: Runtime) -> ServiceParts[Deps]:
    """Build everything the evaluator is made of."""
    config = runtime.config
    build = partial(build_benchmark, only_kinds=chosen_kinds(load_domain(runtime.domain)))
    builder = Builder(runtime=runtime, items=build, run_sessions=run_sessions)
    deps = Deps(
        runtime=runtime,
        contestants=Contestants(config.data_dir / "evaluator"),
        examiner=ModelExaminer(dtype=config.evaluator.dtype, device=config.evaluator.device),
        lease=ComputeLease.of(config),
        builder=builder,
        counting=Counting(runtime.blobs, runtime.domain, threshold=config.curator.near_duplicate_threshold),
        judge=open_judge(config),
    )
    freezer = Freezer(runtime=runtime, builder=builder)
    # One checkpoint at a time over all instances: a second evaluator stands by.
    checkpoints = Subscription(channel="checkpoints", durable="evaluator", handlers=CHECKPOINT_HANDLERS)
    # Of its own, so that a promotion in the making does not queue behind the checkpoints that came after it.
    confirmations = Subscription(channel="confirmations", durable="evaluator", handlers=CONFIRMATION_HANDLERS)
    renewals = Subscription(channel="benchmarks", durable="evaluator", handlers=BENCHMARK_HANDLERS)
    return ServiceParts(deps=deps, subscriptions=[checkpoints, confirmations, renewals], background=[freezer.run])


def chosen_kinds(domain: DomainConfig) -> tuple[str, ...]:
    """Return the domain's `benchmark_kinds`; none means all. Raises ConfigError for a kind that does not exist."""
    unknown = [name for name in domain.benchmark_kinds if name not in item_kinds()]
    if unknown:
        raise ConfigError(
            f"config/domains/{domain.name}.yaml: benchmark_kinds names {', '.join(unknown)}; "
            f"there are {', '.join(sorted(item_kinds()))}"
        )
    return domain.benchmark_kinds
