"""Putting the controller together.

Owns: the one place where its objects are made. Does not know: which bus and store it runs on.
"""

from __future__ import annotations

import asyncio

from fastapi import FastAPI

from jupiter.config import DomainConfig
from jupiter.config.loading import load_domain_of
from jupiter.controller.api import build_app
from jupiter.controller.api.access import check_reachable
from jupiter.controller.conductor import Conductor
from jupiter.controller.config import api_section
from jupiter.controller.deps import Deps
from jupiter.controller.handlers import SUBSCRIPTIONS
from jupiter.errors import ConfigError
from jupiter.health import health_app, serving
from jupiter.service import Runtime, ServiceParts

__all__ = ["application", "assemble", "setup"]


async def setup(runtime: Runtime) -> ServiceParts[Deps]:
    """Rebuild the projection from the streams and return the parts of the service, the API included.

    Raises ConfigError when the API would be open to other machines.
    """
    check_reachable(runtime.config.controller)
    return await assemble(runtime, load_domain_of(runtime.config))


async def assemble(runtime: Runtime, domain: DomainConfig) -> ServiceParts[Deps]:
    """Like `setup`, with the domain's settings given."""
    deps = Deps.build(runtime, domain)
    await deps.following.catch_up()
    await asyncio.to_thread(deps.ledger.refresh)
    conductor = Conductor(deps)
    return ServiceParts(
        deps=deps,
        subscriptions=SUBSCRIPTIONS,
        background=(conductor.follow, conductor.run, conductor.collect, conductor.give_up, lambda: _serve(deps)),
    )


def application(deps: Deps) -> FastAPI:
    """Return the API with /metrics, /healthz and /readyz beside it."""
    started = asyncio.Event()
    started.set()
    app = build_app(deps)
    health = health_app(bus=deps.bus, blobs=deps.blobs, telemetry=deps.runtime.telemetry, started=started)
    # Its routes, not the app at "/": that would answer, in its own way, whatever the API does not know.
    app.include_router(health.router, include_in_schema=False)
    return app


async def _serve(deps: Deps) -> None:
    """Serve the API until the service stops."""
    section = api_section(deps.config)
    try:
        async with serving(application(deps), section, what="api"):
            await deps.runtime.stop.wait()
    except ConfigError as error:
        raise ConfigError(
            f"controller.host {section.host} and controller.port {section.port} cannot be listened on; "
            "is another controller running? Choose another port, or 0 for a free one"
        ) from error
