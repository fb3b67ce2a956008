"""Jupiter on one machine: the embedded servers and the five services, as a library.

    async with LocalCluster(config) as cluster:
        await cluster.start()
        await cluster.wait_for(lambda seen: seen.all(VerdictReached), what="the first verdict", timeout_s=600)

Owns: the order of starting (servers, connections, services, documents) and of draining (services first).
Does not know: how it is shown (`jupiter.cli`), nor what the services do.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from jupiter.blobs import Blobs
from jupiter.bus import Bus
from jupiter.config import ClusterConfig
from jupiter.config.loading import load_domain_of
from jupiter.local.documents import publish_source
from jupiter.local.embedded import SERVER_PORTS, nats_spec, weed_spec
from jupiter.local.endpoints import (
    HOST,
    Endpoints,
    choose_ports,
    located,
    only_supervisor,
    read_endpoints,
    s3_credentials,
    write_endpoints,
)
from jupiter.local.processes import Notice, ProcessSpec, SupervisedProcess
from jupiter.local.services import SERVICES, instances, service_spec
from jupiter.local.watch import CycleWatch

__all__ = ["LocalCluster"]

T = TypeVar("T")

SERVERS = ("nats", "s3")

# SeaweedFS answers its first PUT after about a second; a machine under load takes longer.
SERVER_READY_S_MAX = 60.0
# The generator converts the base model before it is ready (16 s on two cores), and three services import torch.
SERVICE_READY_S_MAX = 300.0


class LocalCluster:
    """Everything on this machine, kept running until `stop`."""

    def __init__(
        self,
        config: ClusterConfig,
        *,
        notify: Callable[[Notice], None] = lambda _: None,
        services: Sequence[str] = SERVICES,
        environment: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        """`notify` hears of every death and restart. For tests of a part: `services` may leave some out, `environment`
        adds variables by process name.
        """
        self.events: list[Notice] = []
        """Every notice so far, oldest first."""
        self.processes: dict[str, SupervisedProcess] = {}
        """By name, in the order of starting: `nats`, `s3`, then the services."""
        self._given = config
        self._notify = notify
        self._services = services
        self._environment = environment or {}
        self._resources = AsyncExitStack()
        self._connections = AsyncExitStack()
        self._config: ClusterConfig | None = None
        self._bus: Bus | None = None
        self._blobs: Blobs | None = None
        self._watch: CycleWatch | None = None

    async def __aenter__(self) -> LocalCluster:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def config(self) -> ClusterConfig:
        """The configuration with the real ports and secrets in it; after `start`."""
        return _started(self._config)

    @property
    def bus(self) -> Bus:
        return _started(self._bus)

    @property
    def blobs(self) -> Blobs:
        return _started(self._blobs)

    @property
    def watch(self) -> CycleWatch:
        return _started(self._watch)

    @property
    def api_url(self) -> str:
        return f"http://{HOST}:{self.config.controller.port}"

    async def start(self) -> None:
        """Start everything and return when it is ready. Raises ConfigError, Conflict (it runs already), Unavailable."""
        load_domain_of(self._given)
        data_dir = self._given.data_dir.resolve()
        self._resources.enter_context(only_supervisor(data_dir))
        ports = self._choose_ports(data_dir)
        endpoints = Endpoints(
            api_url=f"http://{HOST}:{ports['api']}",
            nats_url=f"nats://{HOST}:{ports['nats']}",
            s3_endpoint=f"{HOST}:{ports['s3']}",
            pid=os.getpid(),
            ports=ports,
        )
        self._config = located(self._given.model_copy(update={"data_dir": data_dir}), endpoints)
        self._launch(nats_spec(data_dir / "nats", ports=ports))
        self._launch(weed_spec(data_dir / "s3", ports=ports, credentials=s3_credentials(data_dir)))
        await self._until_ready(SERVER_READY_S_MAX)
        write_endpoints(data_dir, endpoints)
        await self._connect()
        for name, service in instances(self.config, self._services).items():
            extra = self._environment.get(name, {})
            self._launch(service_spec(name, service, config=self.config, ports=ports, extra=extra))
        await asyncio.gather(self._until_ready(SERVICE_READY_S_MAX), self._publish_source())

    async def wait_for(self, condition: Callable[[CycleWatch], object], *, what: str, timeout_s: float) -> None:
        """Return when `condition` holds of the events seen. Raises TimeoutError that names `what`."""
        await self.watch.until(lambda watch: bool(condition(watch)), what=what, timeout_s=timeout_s)

    async def drain(self) -> None:
        """Stop the services and leave the servers up, so that what they left behind can still be read."""
        services = [process for name, process in self.processes.items() if name not in SERVERS]
        await asyncio.gather(*(process.stop() for process in services))

    async def stop(self) -> None:
        """Drain the services, then close the connections, then stop the servers; a second call does nothing."""
        await self.drain()
        await self._connections.aclose()
        await asyncio.gather(*(process.stop() for process in self.processes.values()))
        await self._resources.aclose()

    def kill(self) -> None:
        """End every process at once, without draining: the user asked twice."""
        for process in self.processes.values():
            process.kill()

    def _choose_ports(self, data_dir: Path) -> dict[str, int]:
        before = read_endpoints(data_dir)
        names = (*SERVER_PORTS, "api", *instances(self._given, self._services))
        wanted = {"api": self._given.controller.port}
        ports = choose_ports(names, remembered=before.ports if before else {}, wanted=wanted)
        if wanted["api"] not in (0, ports["api"]):
            taken = f"controller.port {wanted['api']} is in use by another program; the API listens on {ports['api']}"
            self._hear(Notice(name="api", what="started", text=taken))
        return ports

    async def _connect(self) -> None:
        from jupiter.blobs.s3 import S3Blobs
        from jupiter.bus.jetstream import JetStreamBus

        self._blobs = S3Blobs(self.config.s3)
        self._bus = JetStreamBus(self.config.nats, source="jupiter/local")
        self._connections.push_async_callback(self._bus.close)
        await asyncio.gather(self._bus.start(), asyncio.to_thread(self._blobs.start))
        self._watch = await self._connections.enter_async_context(CycleWatch(self._bus, self.config.domain))

    async def _publish_source(self) -> None:
        published = await publish_source(self.config, self.bus)
        if published:
            self._hear(Notice(name="documents", what="ready", text=f"{published} documents published"))

    def _launch(self, spec: ProcessSpec) -> None:
        log_path = self.config.data_dir / "logs" / f"{spec.name}.log"
        process = SupervisedProcess(spec, log_path=log_path, notify=self._hear)
        self.processes[spec.name] = process
        process.start()

    async def _until_ready(self, timeout_s: float) -> None:
        await asyncio.gather(*(process.until_ready(timeout_s=timeout_s) for process in self.processes.values()))

    def _hear(self, notice: Notice) -> None:
        self.events.append(notice)
        self._notify(notice)


def _started(value: T | None) -> T:
    if value is None:
        raise AssertionError("the cluster was not started")
    return value
