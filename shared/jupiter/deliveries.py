"""How one message is worked off: the only place where ack, nak, term and burial are decided.

Owns: decode -> handler -> publish -> ack, heartbeats, retries, dead letters.
Does not know: what a handler does, nor how messages arrive (`bus`) or how many at a time (`service`).

How attempts are counted. The server counts deliveries and keeps that count through every restart, so
`delivery.attempts` is the count: it grows when a handler failed (nak) and when a process died with the message in hand.
Waiting must not use up attempts (a benchmark that is not frozen yet is no failure, nor is a server that is down), and
the server cannot be told so. Therefore a wait is never a nak: the delivery stays in hand, its heartbeat goes on and the
handler is tried again here. The server's own `max_deliver` is off, for a message past it would stay in the stream
unseen; instead this module buries the message after ATTEMPTS_MAX.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from jupiter import crashpoints, trace
from jupiter.bus import Bus, Delivery
from jupiter.bus.codec import decode
from jupiter.errors import JupiterError, Rejected, Retry, Unavailable
from jupiter.events import Event
from jupiter.telemetry import Telemetry

__all__ = ["ATTEMPTS_MAX", "DELIVERIES_MAX", "Handler", "Pauses", "Subscription", "Worker"]

log = logging.getLogger(__name__)

D = TypeVar("D")
T = TypeVar("T")
# The event's class is the key in `handlers`; a mapping of differently typed functions has no better type.
Handler = Callable[[Any, D], Awaitable[Sequence[Event] | None]]
RawHandler = Callable[[bytes, D], Awaitable[Sequence[Event] | None]]

ATTEMPTS_MAX = 5
"""A message whose handler fails on its fifth delivery goes to the dead letters."""
DELIVERIES_MAX = 20
"""A message delivered more often than this without an end has killed its workers: it is buried unopened. More than
ATTEMPTS_MAX because a restart of a service that merely waited counts too."""


@dataclass(frozen=True, kw_only=True)
class Pauses:
    """How long the loop waits, in seconds; tests shorten it."""

    backoff_s: tuple[float, ...] = (0.5, 2.0, 5.0, 10.0)
    """Before the second, third, … attempt. Short: with one message in hand, the others wait as well."""
    unavailable_s: float = 1.0
    """Before a handler that found a server down is tried again."""
    drain_s: float = 10.0
    """Time that work in hand has to finish after a stop; then it is cancelled and given back."""
    background_s: float = 3.0
    """Time that background tasks have to return after a stop; then they are cancelled. Short, because most of them wait
    for the next event of a log and never look at the stop."""
    status_s: float = 1.0
    """A status is published at most this often; the newest one always gets through."""


@dataclass(frozen=True, kw_only=True)
class Subscription(Generic[D]):
    """One durable consumer of a channel, and what to do with its events.

    A known event without a handler is acked: the channel carries it for somebody else.
    """

    channel: str
    durable: str
    handlers: Mapping[type[Event], Handler[D]]
    max_in_flight: int = 1
    """Messages that this instance works on at a time."""
    max_ack_pending: int | None = None
    """Messages in hand over all instances. None: as `max_in_flight`, so that one instance works at a time and the
    others stand by; services that work side by side (generators) say more."""
    raw: RawHandler[D] | None = None
    """For `documents`: gets the bytes instead of an event."""


class _Returned(Exception):
    """The service stops while a message waits: give it back."""


class Worker(Generic[D]):
    """Works off the deliveries of one subscription."""

    def __init__(
        self,
        *,
        subscription: Subscription[D],
        deps: D,
        bus: Bus,
        telemetry: Telemetry,
        service: str,
        stop: asyncio.Event,
        heartbeat_s: float,
        pauses: Pauses,
    ) -> None:
        self._subscription = subscription
        self._deps = deps
        self._bus = bus
        self._telemetry = telemetry
        self._service = service
        self._stop = stop
        self._heartbeat_s = heartbeat_s
        self._pauses = pauses

    async def work_off(self, delivery: Delivery) -> None:
        """Handle one delivery to its end. Cancelled work is given back, never acked."""
        trace.enter(delivery.headers.get(trace.TRACEPARENT))
        name = delivery.headers.get("ce-type", self._subscription.channel)
        async with self._heartbeat(delivery):
            try:
                self._refuse_killer(delivery)
                events = await self._patiently(name, lambda: self._handle(name, delivery))
                for event in events or ():
                    await self._patiently(name, lambda event=event: self._publish(event))  # type: ignore[misc]
                crashpoints.reached("event")
            except (asyncio.CancelledError, _Returned) as end:
                await self._give_back(delivery)
                if isinstance(end, asyncio.CancelledError):
                    raise
            except Rejected as error:
                await self._bury(name, delivery, reason=str(error))
            except Exception as error:  # noqa: BLE001 — whatever a handler raises is that message's failure, not ours
                await self._fail(name, delivery, error)
            else:
                await self._ack(name, delivery)

    def _refuse_killer(self, delivery: Delivery) -> None:
        if delivery.attempts > DELIVERIES_MAX:
            raise Rejected(
                f"delivered {DELIVERIES_MAX} times and never finished: it may be killing the process that handles it"
            )

    async def _handle(self, name: str, delivery: Delivery) -> Sequence[Event] | None:
        started = time.perf_counter()
        try:
            if self._subscription.raw is not None:
                return await self._subscription.raw(delivery.data, self._deps)
            event = decode(delivery.data, delivery.headers)
            handler = self._subscription.handlers.get(type(event))
            return await handler(event, self._deps) if handler else None
        finally:
            self._telemetry.seconds.labels(name).observe(time.perf_counter() - started)

    async def _publish(self, event: Event) -> None:
        await self._bus.publish(event)
        self._telemetry.published.labels(event.type_name()).inc()

    async def _patiently(self, name: str, action: Callable[[], Awaitable[T]]) -> T:
        """Repeat `action` while it says that waiting is all there is to do (see the module's docstring)."""
        waits = 0
        while True:
            try:
                return await action()
            except Unavailable as error:
                reason, delay_s = str(error), self._pauses.unavailable_s
            except Retry as error:
                if error.counts:
                    raise
                reason, delay_s = str(error), error.delay_s
            if waits == 0:
                log.info("%s waits: %s", name, reason)
            waits += 1
            self._telemetry.waited.labels(name).inc()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), delay_s)
            if self._stop.is_set():
                raise _Returned

    async def _fail(self, name: str, delivery: Delivery, error: Exception) -> None:
        """One counted attempt failed: try again later, or bury."""
        reason = str(error) if isinstance(error, JupiterError) else f"{type(error).__name__}: {error}"
        if delivery.attempts >= ATTEMPTS_MAX:
            await self._bury(name, delivery, reason=f"failed {delivery.attempts} times, at last: {reason}", error=error)
            return
        delay_s = error.delay_s if isinstance(error, Retry) else self._pauses.backoff_s[delivery.attempts - 1]
        log.warning(
            "%s failed on attempt %d of %d, again in %g s: %s",
            name,
            delivery.attempts,
            ATTEMPTS_MAX,
            delay_s,
            reason,
            exc_info=None if isinstance(error, JupiterError) else error,
        )
        self._telemetry.retried.labels(name).inc()
        await self._end(delivery, lambda: delivery.nak(delay_s=delay_s))

    async def _bury(self, name: str, delivery: Delivery, *, reason: str, error: Exception | None = None) -> None:
        """Store it in the dead letters, then term; if storing fails it is not termed and comes again."""
        try:
            await self._patiently(name, lambda: self._bus.bury(delivery, service=self._service, reason=reason))
        except _Returned:
            await self._give_back(delivery)
            return
        log.error("%s %d goes to the dead letters: %s", name, delivery.sequence, reason, exc_info=error)
        self._telemetry.dead.labels(name).inc()
        await self._end(delivery, delivery.term)

    async def _ack(self, name: str, delivery: Delivery) -> None:
        if await self._end(delivery, delivery.ack):
            crashpoints.reached("ack")
            self._telemetry.handled.labels(name).inc()

    async def _give_back(self, delivery: Delivery) -> None:
        log.info("giving back %s %d unfinished", delivery.subject, delivery.sequence)
        await asyncio.shield(self._end(delivery, lambda: delivery.nak(delay_s=0)))

    async def _end(self, delivery: Delivery, end: Callable[[], Awaitable[None]]) -> bool:
        """Tell the server; if it is down the message comes again, which every handler expects."""
        try:
            await end()
        except Unavailable as error:
            log.warning("%s %d will come again: %s", delivery.subject, delivery.sequence, error)
            return False
        return True

    @asynccontextmanager
    async def _heartbeat(self, delivery: Delivery) -> AsyncIterator[None]:
        """Keep the message ours while the block runs."""

        async def beat() -> None:
            while True:
                await asyncio.sleep(self._heartbeat_s)
                try:
                    await delivery.in_progress()
                except Unavailable as error:
                    log.debug("heartbeat: %s", error)

        beating = asyncio.create_task(beat())
        try:
            yield
        finally:
            beating.cancel()
