"""What every service runs in: connections, signals, health page, consume loops, background tasks.

Owns: the life of a service process. Does not know: what the service does (its `setup` says), nor how one message is
worked off (`deliveries`).

    async def setup(runtime: Runtime) -> ServiceParts[Deps]:
        deps = Deps(...)
        return ServiceParts(deps=deps, subscriptions=[Subscription(channel="batches", ...)])

    asyncio.run(run_service(name="curator", config=config, setup=setup))

Tests call `serve` with a Runtime of in-memory twins (`Runtime.in_memory`), or `running` as a context manager.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from jupiter import keys
from jupiter.blobs import Blobs
from jupiter.bus import Bus
from jupiter.bus.codec import now
from jupiter.config import ClusterConfig
from jupiter.deliveries import Handler, Pauses, Subscription, Worker
from jupiter.errors import ConfigError, JupiterError, Unavailable
from jupiter.events import ServiceStatus
from jupiter.telemetry import Telemetry, configure_logging

__all__ = ["Handler", "Runtime", "ServiceParts", "Subscription", "run_service", "running", "serve"]

log = logging.getLogger(__name__)

D = TypeVar("D")

EXIT_GRACE_S = 10.0
"""After the drain, or an error, time until the process is ended even if a thread hangs."""
CANCEL_AGAIN_S = 0.5
CONNECT_S_MAX = 120.0
"""Time that the bus and the object store may take to come up before the service gives up."""
CONNECT_PAUSE_S = 1.0


@dataclass(kw_only=True)
class Runtime:
    """What a service's parts may use."""

    name: str
    instance: str
    domain: str
    config: ClusterConfig
    bus: Bus
    blobs: Blobs
    telemetry: Telemetry
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the service shall end; background tasks return soon after."""
    pauses: Pauses = field(default_factory=Pauses)
    _newest: ServiceStatus | None = None
    _publishing: asyncio.Task[None] | None = None

    @classmethod
    def in_memory(
        cls,
        *,
        name: str,
        config: ClusterConfig,
        bus: Bus,
        blobs: Blobs,
        instance: str = "test",
        pauses: Pauses | None = None,
    ) -> Runtime:
        """Return a runtime for tests, around the twins that the test holds."""
        return cls(
            name=name,
            instance=instance,
            domain=config.domain,
            config=config,
            bus=bus,
            blobs=blobs,
            telemetry=Telemetry(),
            pauses=pauses or Pauses(),
        )

    async def status(
        self,
        stage: str,
        *,
        detail: str = "",
        done: float | None = None,
        total: float | None = None,
        unit: str = "",
        rate_per_s: float | None = None,
        **figures: Any,
    ) -> None:
        """Say what this instance does now. Returns at once; never fails."""
        self._newest = ServiceStatus(
            domain=self.domain,
            service=self.name,
            instance=self.instance,
            time=now(),
            stage=stage,
            detail=detail,
            done=done,
            total=total,
            unit=unit,
            rate_per_s=rate_per_s,
            figures=figures,
        )
        if self._publishing is None or self._publishing.done():
            self._publishing = asyncio.create_task(self._publish_statuses(), name="status")

    async def _publish_statuses(self) -> None:
        """Publish the newest status, then wait out the interval, until there is no newer one."""
        while (newest := self._newest) is not None:
            self._newest = None
            try:
                await self.bus.publish(newest)
            except JupiterError as error:
                log.debug("status not published: %s", error)
            await asyncio.sleep(self.pauses.status_s)

    async def close(self) -> None:
        """Stop publishing statuses."""
        if self._publishing is not None:
            self._publishing.cancel()
            await asyncio.wait([self._publishing])


@dataclass(kw_only=True)
class ServiceParts(Generic[D]):
    """What a service's `setup` made: its dependencies, what it consumes, what it does besides."""

    deps: D
    subscriptions: Sequence[Subscription[D]] = ()
    background: Sequence[Callable[[], Awaitable[None]]] = ()
    """Run beside the subscriptions. One that returns is done, one that raises ends the process. After `runtime.stop`
    they may finish what they do (`Pauses.background_s`), then they are cancelled."""
    close: Callable[[], Awaitable[None]] | None = None


async def serve(runtime: Runtime, parts: ServiceParts[D]) -> None:
    """Run the parts until `runtime.stop`, then drain. Raises what a background task raised."""
    consumers = [_Consumer(runtime, parts.deps, subscription) for subscription in parts.subscriptions]
    consuming = [asyncio.create_task(consumer.run(), name=consumer.name) for consumer in consumers]
    background = [asyncio.create_task(_returned(part), name=f"background {part}") for part in parts.background]
    tasks = [*consuming, *background]
    stopping = asyncio.create_task(runtime.stop.wait())
    try:
        failed = await _first_failure(tasks, stopping)
        runtime.stop.set()
        await asyncio.gather(_drain(consuming, runtime.pauses.drain_s), _drain(background, runtime.pauses.background_s))
        if failed is not None:
            raise failed
    finally:
        await _cancel([*tasks, stopping])
        if parts.close is not None:
            await parts.close()
        await runtime.close()


async def _returned(part: Callable[[], Awaitable[None]]) -> None:
    await part()


async def _first_failure(tasks: Sequence[asyncio.Task[None]], stopping: asyncio.Task[Any]) -> BaseException | None:
    """Wait for the stop; return the exception of the first task that raised before it."""
    waiting: set[asyncio.Task[Any]] = {*tasks, stopping}
    while not stopping.done():
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in done - {stopping}:
            error = task.exception()
            if error is not None:
                return error
    return None


async def _drain(tasks: Sequence[asyncio.Task[None]], drain_s: float) -> None:
    """Give running work `drain_s`, then cancel it. A failure now is logged: the service is ending anyway."""
    if not tasks:
        return
    done, late = await asyncio.wait(tasks, timeout=drain_s)
    for task in done:
        if not task.cancelled() and task.exception() is not None:
            log.warning("%s failed while stopping", task.get_name(), exc_info=task.exception())
    for task in late:
        log.info("%s did not finish within %g s and is cancelled", task.get_name(), drain_s)
    await _cancel([*late])


async def _cancel(tasks: Sequence[asyncio.Task[Any]]) -> None:
    # Until Python 3.12, `asyncio.wait_for` loses a cancel that comes together with its result: say it again.
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=CANCEL_AGAIN_S)
    await asyncio.gather(*tasks, return_exceptions=True)


class _Consumer(Generic[D]):
    """Feeds the deliveries of one subscription to at most `max_in_flight` tasks."""

    def __init__(self, runtime: Runtime, deps: D, subscription: Subscription[D]) -> None:
        self.name = f"consume-{subscription.channel}-{subscription.durable}"
        self._runtime, self._subscription = runtime, subscription
        self._worker = Worker(
            subscription=subscription,
            deps=deps,
            bus=runtime.bus,
            telemetry=runtime.telemetry,
            service=runtime.name,
            stop=runtime.stop,
            heartbeat_s=runtime.config.nats.ack_wait_s / 3,
            pauses=runtime.pauses,
        )
        self._in_hand: dict[int, asyncio.Task[None]] = {}
        self._broken: asyncio.Queue[BaseException] = asyncio.Queue()

    async def run(self) -> None:
        """Consume until the stop, then wait for what is in hand; a cancel cancels that too."""
        receiving = asyncio.create_task(self._receive())
        stopping = asyncio.create_task(self._runtime.stop.wait())
        broken = asyncio.create_task(self._broken.get())
        try:
            await asyncio.wait([receiving, stopping, broken], return_when=asyncio.FIRST_COMPLETED)
            if broken.done():
                raise broken.result()
            receiving.cancel()
            with suppress(asyncio.CancelledError):
                await receiving
            if self._in_hand:
                await asyncio.wait(self._in_hand.values())
        finally:
            await _cancel([receiving, stopping, broken, *self._in_hand.values()])

    async def _receive(self) -> None:
        subscription = self._subscription
        slots = asyncio.Semaphore(subscription.max_in_flight)
        deliveries = self._runtime.bus.consume(
            keys.subject(subscription.channel, self._runtime.domain),
            durable=subscription.durable,
            max_ack_pending=subscription.max_ack_pending or subscription.max_in_flight,
        )
        while True:
            await slots.acquire()
            delivery = await anext(deliveries)
            if delivery.sequence in self._in_hand:  # redelivered to us after an outage: the first holder will end it
                slots.release()
                continue
            task = asyncio.create_task(self._worker.work_off(delivery))
            self._in_hand[delivery.sequence] = task

            def ended(task: asyncio.Task[None], sequence: int = delivery.sequence) -> None:
                del self._in_hand[sequence]
                slots.release()
                if not task.cancelled() and (error := task.exception()) is not None:
                    self._broken.put_nowait(error)  # a fault of ours, not of the message: the service must not go on

            task.add_done_callback(ended)


@asynccontextmanager
async def running(runtime: Runtime, parts: ServiceParts[D]) -> AsyncIterator[None]:
    """Run the parts while the block runs, then stop and drain: how tests run a service in their own loop."""
    task = asyncio.create_task(serve(runtime, parts))
    try:
        yield
    finally:
        runtime.stop.set()
        await task


Setup = Callable[[Runtime], Awaitable[ServiceParts[D]]]


async def run_service(*, name: str, config: ClusterConfig, setup: Setup[D]) -> None:
    """Run a service process until SIGTERM or SIGINT. Exits non-zero when something unexpected ends it."""
    from jupiter.blobs.s3 import S3Blobs
    from jupiter.bus.jetstream import JetStreamBus
    from jupiter.health import health_app, serving

    instance = re.sub(r"[^A-Za-z0-9_-]", "-", config.instance or f"{socket.gethostname()}-{os.getpid()}")
    configure_logging(config.telemetry, service=name, instance=instance, domain=config.domain)
    try:
        blobs = S3Blobs(config.s3)
    except ConfigError as error:
        log.error("%s cannot start: %s", name, error)  # noqa: TRY400 — the user's mistake, not ours
        raise SystemExit(2) from error
    runtime = Runtime(
        name=name,
        instance=instance,
        domain=config.domain,
        config=config,
        bus=JetStreamBus(config.nats, source=f"jupiter/{name}/{instance}"),
        blobs=blobs,
        telemetry=Telemetry(),
    )
    _stop_on_signals(runtime)
    started = asyncio.Event()
    app = health_app(bus=runtime.bus, blobs=runtime.blobs, telemetry=runtime.telemetry, started=started)
    try:
        async with serving(app, config.telemetry):
            if not await _connect(runtime):
                return
            parts = await setup(runtime)
            started.set()
            log.info("%s is up", name)
            await serve(runtime, parts)
    except JupiterError as error:
        log.error("%s ends: %s", name, error)  # noqa: TRY400 — the message says it; a traceback would hide it
        _end_by_force_after(EXIT_GRACE_S, code=1)
        raise SystemExit(1) from error
    except Exception as error:
        log.exception("%s ends on an unexpected error", name)
        _end_by_force_after(EXIT_GRACE_S, code=1)
        raise SystemExit(1) from error
    finally:
        await runtime.bus.close()
        log.info("%s is down", name)


async def _connect(runtime: Runtime) -> bool:
    """Wait for both servers; False when told to stop meanwhile. Raises Unavailable after CONNECT_S_MAX."""
    deadline = time.monotonic() + CONNECT_S_MAX
    while not runtime.stop.is_set():
        try:
            await runtime.bus.start()
            await asyncio.to_thread(runtime.blobs.start)
        except Unavailable as error:
            if time.monotonic() > deadline:
                raise
            log.warning("waiting for the servers: %s", error)
            with suppress(TimeoutError):
                await asyncio.wait_for(runtime.stop.wait(), CONNECT_PAUSE_S)
        else:
            return True
    return False


def _stop_on_signals(runtime: Runtime) -> None:
    """Let SIGTERM and SIGINT set `stop`."""

    def received(number: signal.Signals) -> None:
        log.info("%s: draining", number.name)
        runtime.stop.set()
        _end_by_force_after(runtime.pauses.drain_s + EXIT_GRACE_S, code=128 + number)

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, received, number)


def _end_by_force_after(seconds: float, *, code: int) -> None:
    """End the process by then even if a thread hangs: the interpreter waits for threads, and nobody else would."""
    guard = threading.Timer(seconds, os._exit, args=(code,))
    guard.daemon = True
    guard.start()
