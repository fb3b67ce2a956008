"""One connection to NATS that survives its server.

Owns: connecting, reconnecting, bounded retries of requests, and inboxes for answers of several messages.
Does not know: streams and events (`jetstream`).

nats-py's `fetch` of several messages waits when fewer are there (nats.py #986), and its ordered consumers hold their
place in the server, which a restart forgets. An inbox, and a request that is sent again after a timeout, do not.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.errors import APIError, NoStreamResponseError, NotFoundError

from jupiter.bus.credentials import credentials_for
from jupiter.config.sections import NatsSection
from jupiter.errors import Rejected, Unavailable

__all__ = ["Connection", "Inbox", "status_of"]

log = logging.getLogger(__name__)

T = TypeVar("T")

CONNECT_S = 5.0
PING_INTERVAL_S = 5
PINGS_LOST_MAX = 2
RECONNECT_PAUSE_S = 0.2
REQUEST_S = 3.0
"""Time that one request may take; with `sync_interval: always` a publish takes milliseconds."""
RETRY_S_MAX = 20.0
"""Time over which a request is repeated before the server counts as unavailable."""
RETRY_PAUSE_S = 0.1
FULL = "maximum bytes exceeded"
"""In the server's answer when a stream has reached its limit: no matter of seconds."""


def status_of(message: Msg) -> str | None:
    """Return the status code of a control message (408: nothing came, 404: nothing there, …), None for content."""
    headers: Mapping[str, str] | None = message.headers
    return None if headers is None or message.data else headers.get("Status")


class Inbox:
    """A private subject: sends requests whose answer may be any number of messages."""

    def __init__(self, client: Client, subscription: Any, subject: str) -> None:
        self._client, self._subscription, self._subject = client, subscription, subject

    async def ask(self, subject: str, request: Mapping[str, Any]) -> None:
        await self._client.publish(subject, json.dumps(request).encode(), reply=self._subject)

    async def next(self, *, timeout_s: float) -> Msg:
        """Return the next message. Raises TimeoutError."""
        message: Msg = await self._subscription.next_msg(timeout=timeout_s)
        return message

    @property
    def waiting(self) -> int:
        """Messages that came and were not taken."""
        return int(self._subscription.pending_msgs)


class Connection:
    """See the module's docstring."""

    def __init__(self, section: NatsSection, *, name: str, retry_s: float = RETRY_S_MAX) -> None:
        self._section, self._name, self._retry_s = section, name, retry_s
        self._client: Client | None = None

    async def open(self) -> None:
        """Connect. Raises ConfigError, and Unavailable after CONNECT_S; once open it reconnects for ever."""
        if self._client is not None and not self._client.is_closed:
            return
        credentials = credentials_for(self._section, client=self._name)
        client = Client()
        heard: list[Exception] = []

        async def hear(error: Exception) -> None:
            # A server that refuses closes the connection, and its words may be lost: what it once said stays.
            if isinstance(error, nats.errors.Error) or not heard or not isinstance(heard[0], nats.errors.Error):
                heard[:] = [error]
            await _quietly(error)

        try:
            async with asyncio.timeout(CONNECT_S):
                await client.connect(
                    servers=[url.strip() for url in self._section.url.split(",")],
                    name=self._name,
                    connect_timeout=2,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=RECONNECT_PAUSE_S,  # type: ignore[arg-type] # a float is slept as well
                    ping_interval=PING_INTERVAL_S,
                    max_outstanding_pings=PINGS_LOST_MAX,
                    error_cb=hear,
                    disconnected_cb=_disconnected,
                    reconnected_cb=_reconnected,
                    **credentials,
                )
        except (TimeoutError, OSError, nats.errors.Error) as error:
            await client.close()
            reason = str(error) or (str(heard[0]) if heard else type(error).__name__)
            raise Unavailable(f"no connection to NATS at {self._section.url}: {reason}") from error
        self._client = client

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()

    @property
    def client(self) -> Client:
        if self._client is None or self._client.is_closed:
            raise Unavailable("the connection to NATS is not open")
        return self._client

    @property
    def jetstream(self) -> JetStreamContext:
        return self.client.jetstream(timeout=REQUEST_S)

    async def insist(self, what: str, request: Callable[[], Awaitable[T]]) -> T:
        """Repeat an idempotent request until it is answered. Raises Unavailable after `retry_s`.

        "Not found" is an answer: NotFoundError passes through.
        """
        deadline = time.monotonic() + self._retry_s
        while True:
            try:
                return await request()
            except NotFoundError:
                raise
            except nats.errors.MaxPayloadError as error:
                raise Rejected(f"{what}: the message is larger than the NATS server's max_payload") from error
            except APIError as error:
                if FULL in (error.description or ""):
                    raise Unavailable(f"{what}: the stream is full; raise nats.stream_bytes_max") from error
                failure: Exception = error
            except (TimeoutError, OSError, NoStreamResponseError, nats.errors.Error) as error:
                failure = error
            if time.monotonic() > deadline or self.client.is_closed:
                raise Unavailable(f"{what}: {failure or type(failure).__name__}") from failure
            await asyncio.sleep(RETRY_PAUSE_S)

    async def request(self, subject: str, data: bytes) -> None:
        """Send and wait for any answer, repeating. Raises Unavailable."""
        await self.insist(subject, lambda: self.client.request(subject, data, timeout=REQUEST_S))

    @asynccontextmanager
    async def inbox(self) -> AsyncIterator[Inbox]:
        """Open an inbox; nats-py subscribes it again after each reconnect."""
        subject = self.client.new_inbox()
        subscription = await self.client.subscribe(subject)
        try:
            yield Inbox(self.client, subscription, subject)
        finally:
            if not self.client.is_closed:
                await subscription.unsubscribe()


async def _quietly(error: Exception) -> None:
    log.debug("nats: %s", error)


async def _disconnected() -> None:
    log.warning("the connection to NATS is lost; reconnecting")


async def _reconnected() -> None:
    log.info("connected to NATS again")
