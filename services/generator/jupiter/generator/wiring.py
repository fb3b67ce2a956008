"""Where the generator's objects are made.

Owns: construction, and the import of the base model when the ledger is empty. Does not know: what any of them does.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from jupiter import ledger
from jupiter.compute import ComputeLease, Turns, compute
from jupiter.config import DomainConfig
from jupiter.config.loading import load_domain
from jupiter.errors import ConfigError
from jupiter.generator.base_model import prepare_base_model
from jupiter.generator.config import base_model_cache, versions_directory
from jupiter.generator.engines import EngineSettings, create_engine
from jupiter.generator.handlers import Deps, subscriptions
from jupiter.generator.importing import store_base_model
from jupiter.generator.reloading import Reloader
from jupiter.generator.serving import Serving
from jupiter.generator.tasks import task_names
from jupiter.generator.versions import Versions
from jupiter.modeling import resolve_device
from jupiter.service import Runtime, ServiceParts

__all__ = ["setup"]

log = logging.getLogger(__name__)


async def setup(runtime: Runtime) -> ServiceParts[Deps]:
    """Build everything the generator is made of. Raises ConfigError."""
    settings = runtime.config.generator
    _refuse_unknown_tasks(load_domain(runtime.domain))
    engine = create_engine(
        settings.engine,
        EngineSettings(
            dtype=settings.dtype,
            device=settings.device,
            batch_size=settings.batch_size,
            own=getattr(settings, settings.engine, None),
        ),
    )
    lease = ComputeLease.of(runtime.config)
    serving = Serving(keep_previous=settings.keep_previous)
    reloader = Reloader(
        runtime=runtime,
        engine=engine,
        lease=lease,
        serving=serving,
        versions=Versions(versions_directory(runtime.config)),
    )
    deps = Deps(runtime=runtime, engine=engine, lease=lease, serving=serving, reloader=reloader)

    async def import_base_model() -> None:
        await _import_if_first(runtime, lease)

    return ServiceParts(deps=deps, subscriptions=subscriptions(), background=[import_base_model, reloader.run])


def _refuse_unknown_tasks(domain: DomainConfig) -> None:
    """Stop here, where somebody looks: each request that names such a task would end in the dead letters."""
    unknown = sorted({mix.task for mix in domain.tasks} - set(task_names()))
    if unknown:
        raise ConfigError(
            f"config/domains/{domain.name}.yaml: tasks names {', '.join(unknown)}; there are {', '.join(task_names())}"
        )


async def _import_if_first(runtime: Runtime, lease: ComputeLease) -> None:
    """Offer the base model as version 1 while the ledger is empty; repeating it does no harm."""
    if await asyncio.to_thread(ledger.read_ledger, runtime.blobs, runtime.domain):
        return
    settings = runtime.config.generator
    await runtime.status("loading", detail=f"importing the base model {settings.base_model}")

    def prepare(_: Turns) -> Path:
        return prepare_base_model(
            settings.base_model,
            base_model_cache(runtime.config),
            dtype=settings.dtype,
            device=resolve_device(settings.device),
        )

    directory = await compute(lease, "importing", prepare)
    imported = await asyncio.to_thread(
        store_base_model, runtime.blobs, directory, domain=runtime.domain, name=settings.base_model
    )
    await runtime.bus.publish(imported)
    log.info("the base model %s is imported", settings.base_model)
    await runtime.status("waiting", detail="for the base model to be registered as version 1")
