"""`python -m jupiter.curator`: documents and batches in, shards out."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from jupiter.curator.config import load

if TYPE_CHECKING:
    from jupiter.curator.handlers import Deps
    from jupiter.service import Runtime, ServiceParts


async def setup(runtime: Runtime) -> ServiceParts[Deps]:
    """Build everything the curator is made of."""
    from jupiter.curator.handlers import Deps, subscriptions
    from jupiter.curator.metrics import Metrics
    from jupiter.curator.sandboxed import SandboxedRunner
    from jupiter.service import ServiceParts

    settings = runtime.config.curator
    deps = Deps(
        runtime=runtime, settings=settings, run_code=SandboxedRunner(), metrics=Metrics(runtime.telemetry.registry)
    )
    await runtime.status("idle", detail="waiting for documents and batches")
    return ServiceParts(deps=deps, subscriptions=subscriptions(settings))


def main() -> None:
    config = load()  # before the heavy imports: `--help` and a wrong setting answer at once

    from jupiter.service import run_service

    asyncio.run(run_service(name="curator", config=config, setup=setup))


if __name__ == "__main__":
    main()
