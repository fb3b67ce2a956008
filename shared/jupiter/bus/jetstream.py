"""The bus on NATS JetStream.

Owns: publishing with dedup, durable consumers, log reading, dead letters, over a connection that comes and goes.
Does not know: what events mean; how often a message is tried (`deliveries`).

Never `publish_async`: its errors never reach the caller (nats-py #985, measured). A publish that timed out may have
been stored, so it is repeated with the same id.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import nats
from nats.aio.msg import Msg
from nats.js.api import StreamState
from nats.js.errors import APIError, BadRequestError, NotFoundError

from jupiter.bus import DeadLetter, Delivery, LogEntry, Outstanding, Receipt
from jupiter.bus.codec import (
    DEAD_CHANNEL,
    MESSAGE_ID,
    channel_of,
    consumer_name,
    decode,
    encode,
    encode_dead_letter,
    read_dead_letter,
)
from jupiter.bus.connection import REQUEST_S, RETRY_S_MAX, Connection, Inbox, status_of
from jupiter.bus.streams import CANARY_CHANNEL, consumer_config, stream_configs, stream_name
from jupiter.config.sections import NatsSection
from jupiter.errors import NotFound, Rejected, Unavailable
from jupiter.events import Event

__all__ = ["JetStreamBus"]

log = logging.getLogger(__name__)

PULL_S = 2.0
"""How long a consumer's request for work waits at the server; after a restart of the server it is asked again."""
PULL_SLACK_S = 1.0
NOTHING_CAME = "408"
LOG_BATCH = 256
POLL_S = 2.0
"""A log reader looks at least this often; normally the message itself wakes it."""
SETTLE_S = (0.005, 0.02, 0.1, 0.3)
"""A message is heard a moment before it is stored: a woken reader looks again after these pauses."""
STREAM_EXISTS = 10058
"""JetStream's error code for a stream that exists with another configuration."""


@dataclass(frozen=True, kw_only=True)
class _Stored:
    sequence: int
    subject: str
    data: bytes
    headers: Mapping[str, str]


class JetStreamDelivery:
    """One message of a durable consumer; see `Delivery`."""

    def __init__(self, connection: Connection, message: Msg) -> None:
        self._connection, self._message = connection, message
        metadata = message.metadata
        self._sequence, self._attempts = int(metadata.sequence.stream), int(metadata.num_delivered)

    @property
    def subject(self) -> str:
        return str(self._message.subject)

    @property
    def data(self) -> bytes:
        return bytes(self._message.data)

    @property
    def headers(self) -> Mapping[str, str]:
        return dict(self._message.headers or {})

    @property
    def sequence(self) -> int:
        return self._sequence

    @property
    def attempts(self) -> int:
        return self._attempts

    async def ack(self) -> None:
        await self._connection.request(self._message.reply, b"+ACK")

    async def nak(self, *, delay_s: float) -> None:
        await self._connection.request(
            self._message.reply, b"-NAK " + json.dumps({"delay": int(delay_s * 1e9)}).encode()
        )

    async def term(self) -> None:
        await self._connection.request(self._message.reply, b"+TERM")

    async def in_progress(self) -> None:
        try:
            await self._connection.client.publish(self._message.reply, b"+WPI")
        except nats.errors.Error as error:
            raise Unavailable(f"heartbeat not sent: {error}") from error


class JetStreamBus:
    """See `Bus`."""

    def __init__(self, section: NatsSection, *, source: str, retry_s: float = RETRY_S_MAX) -> None:
        self.unreadable = 0
        """Log entries that `read` skipped."""
        self._section, self._source = section, source
        self._connection = Connection(section, name=source, retry_s=retry_s)

    async def start(self) -> None:
        await self._connection.open()
        for config in stream_configs(self._section):
            await (self._ensure(config) if self._section.manage_streams else self._find(str(config.name)))

    async def _ensure(self, config: Any) -> None:
        """Create the stream, or bring the one that exists to this configuration."""

        async def create_or_update() -> None:
            try:
                await self._connection.jetstream.add_stream(config)
            except BadRequestError as error:
                if error.err_code != STREAM_EXISTS:
                    raise
                await self._connection.jetstream.update_stream(config)

        await self._connection.insist(f"stream {config.name}", create_or_update)

    async def _find(self, name: str) -> None:
        """Raises Unavailable while somebody else has still to create the stream."""
        try:
            await self._connection.insist(f"stream {name}", lambda: self._connection.jetstream.stream_info(name))
        except NotFoundError as error:
            raise Unavailable(
                f"there is no stream {name}, and nats.manage_streams is off: has `jupiter.provision` run?"
            ) from error

    async def close(self) -> None:
        await self._connection.close()

    async def publish(self, event: Event) -> Receipt:
        encoded = encode(event, source=self._source)
        return await self.publish_raw(
            encoded.subject, encoded.data, message_id=encoded.message_id, headers=encoded.headers
        )

    async def publish_raw(
        self, subject: str, data: bytes, *, message_id: str | None = None, headers: Mapping[str, str] | None = None
    ) -> Receipt:
        # Without an id of its own a message gets a random one: a repeated publish must not store it twice.
        all_headers = {**(headers or {}), MESSAGE_ID: message_id or secrets.token_hex(16)}
        stored = await self._connection.insist(
            f"publishing on {subject}",
            lambda: self._connection.jetstream.publish(subject, data, timeout=REQUEST_S, headers=dict(all_headers)),
        )
        return Receipt(sequence=int(stored.seq), duplicate=bool(stored.duplicate))

    async def consume(self, subject: str, *, durable: str, max_ack_pending: int) -> AsyncIterator[JetStreamDelivery]:
        stream, name = stream_name(channel_of(subject)), consumer_name(durable, subject)
        config = consumer_config(
            name, subject=subject, max_ack_pending=max_ack_pending, ack_wait_s=self._section.ack_wait_s
        )

        async def ensure() -> None:
            await self._patiently(f"consumer {name}", lambda: self._connection.jetstream.add_consumer(stream, config))

        await ensure()
        while True:
            async with self._pulling() as inbox:
                while True:
                    await inbox.ask(
                        f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}", {"batch": 1, "expires": int(PULL_S * 1e9)}
                    )
                    try:
                        message = await self._pulled(inbox, recreate=ensure)
                    except TimeoutError:
                        break  # not even "nothing came": the server was away. A late answer goes with the old inbox.
                    if message is not None:
                        yield JetStreamDelivery(self._connection, message)

    async def _pulled(self, inbox: Inbox, *, recreate: Callable[[], Awaitable[None]]) -> Msg | None:
        """Return what a request for one message brought, None when nothing came. Raises TimeoutError."""
        message = await inbox.next(timeout_s=PULL_S + PULL_SLACK_S)
        status = status_of(message)
        if status is None:
            return message
        if status != NOTHING_CAME:
            log.info("consumer: %s %s", status, (message.headers or {}).get("Description", ""))
            await asyncio.sleep(SETTLE_S[-1])
            await recreate()  # 503: the server just started; 404, 409: the consumer is gone or moved
        return None

    @asynccontextmanager
    async def _pulling(self) -> AsyncIterator[Inbox]:
        """An inbox for work; what came into it untaken is given back at the end, not left until `ack_wait`."""
        async with self._connection.inbox() as inbox:
            try:
                yield inbox
            finally:
                for _ in range(inbox.waiting):
                    message = await inbox.next(timeout_s=REQUEST_S)
                    if status_of(message) is None:
                        await JetStreamDelivery(self._connection, message).nak(delay_s=0)

    async def _patiently(self, what: str, request: Callable[[], Awaitable[Any]]) -> Any:
        """Like `insist`, but for ever: consumers and readers outlive any outage."""
        while True:
            try:
                return await self._connection.insist(what, request)
            except Unavailable as error:
                self._connection.client  # noqa: B018 — raises Unavailable when the bus was closed
                log.warning("still waiting: %s", error)

    async def read(self, subject: str, *, after: int = 0, follow: bool = True) -> AsyncIterator[LogEntry]:
        end = None if follow else await self._newest(subject)
        async with self._hearing(subject, follow=follow) as heard:
            while end is None or after < end:
                heard.clear()
                batch = await self._next_batch(subject, after=after)
                for stored in batch:
                    if end is not None and stored.sequence > end:
                        return
                    after = stored.sequence
                    try:
                        event = decode(stored.data, stored.headers)
                    except Rejected as error:
                        self.unreadable += 1
                        log.warning("%s %d is skipped: %s", stored.subject, stored.sequence, error)
                        continue
                    yield LogEntry(sequence=stored.sequence, event=event)
                if not batch:
                    await self._settle(subject, heard, after=after)

    async def _settle(self, subject: str, heard: asyncio.Event, *, after: int) -> None:
        """Return when there may be something new."""
        try:
            async with asyncio.timeout(POLL_S):
                await heard.wait()
        except TimeoutError:
            return
        for pause_s in SETTLE_S:
            if await self._next_batch(subject, after=after, limit=1):
                return
            await asyncio.sleep(pause_s)

    @asynccontextmanager
    async def _hearing(self, subject: str, *, follow: bool) -> AsyncIterator[asyncio.Event]:
        """An event that is set when something is published on the subject: a hint, the log is the truth."""
        heard = asyncio.Event()
        if not follow:
            yield heard
            return

        async def hear(_: Msg) -> None:
            heard.set()

        subscription = await self._connection.client.subscribe(subject, cb=hear)
        try:
            yield heard
        finally:
            if not self._connection.client.is_closed:
                await subscription.unsubscribe()

    async def _newest(self, subject: str) -> int:
        """Return the sequence of the newest message on a subject (pattern), asked of the stream's leader."""
        stream = stream_name(channel_of(subject))
        try:
            found = await self._connection.insist(
                f"last of {subject}", lambda: self._connection.jetstream.get_last_msg(stream, subject)
            )
        except NotFoundError:
            return 0
        return int(found.seq or 0)

    async def _next_batch(self, subject: str, *, after: int, limit: int = LOG_BATCH) -> list[_Stored]:
        """Like `_batch`, waiting out any outage."""
        found: list[_Stored] = await self._patiently(
            f"reading {subject}", lambda: self._batch(subject, after=after, limit=limit)
        )
        return found

    async def _batch(self, subject: str, *, after: int, limit: int) -> list[_Stored]:
        """Return the next stored messages; fewer than there are when the server goes away in between."""
        found: list[_Stored] = []
        async with self._connection.inbox() as inbox:
            await inbox.ask(
                f"$JS.API.DIRECT.GET.{stream_name(channel_of(subject))}",
                {"seq": after + 1, "next_by_subj": subject, "batch": limit},
            )
            while len(found) < limit:
                try:
                    message = await inbox.next(timeout_s=REQUEST_S)
                except TimeoutError:
                    if not found:
                        raise
                    return found
                status = status_of(message)
                if status in ("204", "404"):
                    return found
                if status is not None:
                    # As an error of the client's, so that it is asked again after a pause like any other request.
                    raise nats.errors.Error(f"{status} {(message.headers or {}).get('Description', '')}".strip())
                found.append(_stored(message))
        return found

    async def last_sequence(self, channel: str) -> int:
        return int((await self._state(channel)).last_seq)

    async def _state(self, channel: str) -> StreamState:
        info = await self._connection.insist(
            f"state of {channel}", lambda: self._connection.jetstream.stream_info(stream_name(channel))
        )
        return info.state

    async def backlog(self, subject: str, *, durable: str) -> int:
        stream, name = stream_name(channel_of(subject)), consumer_name(durable, subject)

        async def ask() -> int:
            try:
                info = await self._connection.jetstream.consumer_info(stream, name)
            except NotFoundError:
                return 0
            return int(info.num_pending or 0) + int(info.num_ack_pending or 0)

        return int(await self._connection.insist(f"backlog of {name}", ask))

    async def outstanding(self, subject: str, *, durable: str) -> Outstanding:
        stream, name = stream_name(channel_of(subject)), consumer_name(durable, subject)

        async def ask() -> Outstanding:
            try:
                info = await self._connection.jetstream.consumer_info(stream, name)
            except NotFoundError:
                return Outstanding()
            return Outstanding(
                acked_through=info.ack_floor.stream_seq if info.ack_floor else 0,
                delivered_through=info.delivered.stream_seq if info.delivered else 0,
                unacked=int(info.num_ack_pending or 0),
            )

        return await self._connection.insist(f"place of {name}", ask)

    async def bury(self, delivery: Delivery, *, service: str, reason: str) -> None:
        letter = encode_dead_letter(delivery, service=service, reason=reason)
        await self.publish_raw(letter.subject, letter.data, message_id=letter.message_id, headers=letter.headers)

    async def dead_letters(self, *, after: int = 0, limit: int = 100) -> list[DeadLetter]:
        subject = f"{DEAD_CHANNEL}.>"
        batch = await self._connection.insist("dead letters", lambda: self._batch(subject, after=after, limit=limit))
        return [read_dead_letter(stored.sequence, stored.data, stored.headers) for stored in batch]

    async def dead_letter_count(self) -> int:
        return int((await self._state(DEAD_CHANNEL)).messages)

    async def replay_dead_letter(self, sequence: int) -> Receipt:
        # The first letter at or after the sequence is the one itself, or there is none of this number.
        found = await self.dead_letters(after=sequence - 1, limit=1)
        if not found or found[0].sequence != sequence:
            raise NotFound(f"there is no dead letter {sequence}")
        (letter,) = found
        headers = {name: value for name, value in letter.headers.items() if name != MESSAGE_ID}
        receipt = await self.publish_raw(letter.subject, letter.data, message_id=f"replay-{sequence}", headers=headers)
        await self.drop_dead_letter(sequence)
        return receipt

    async def drop_dead_letter(self, sequence: int) -> None:
        async def drop() -> bool:
            try:
                return bool(await self._connection.jetstream.delete_msg(stream_name(DEAD_CHANNEL), sequence))
            except APIError as error:
                if error.code in (400, 404) or "no message found" in (error.description or "").lower():
                    return False
                raise

        if not await self._connection.insist(f"dropping dead letter {sequence}", drop):
            raise NotFound(f"there is no dead letter {sequence}")

    async def ready(self) -> None:
        token = re.sub(r"[^A-Za-z0-9_-]", "-", self._source)
        try:
            await self._connection.jetstream.publish(f"{CANARY_CHANNEL}.{token}", b"", timeout=REQUEST_S)
        except (TimeoutError, OSError, nats.errors.Error) as error:
            raise Unavailable(f"NATS stores no canary: {error or type(error).__name__}") from error


def _stored(message: Msg) -> _Stored:
    """Unwrap an answer of the direct-get API: the server adds its own headers to the message's."""
    headers = dict(message.headers or {})
    sequence, subject = int(headers.pop("Nats-Sequence")), headers.pop("Nats-Subject")
    for name in ("Nats-Stream", "Nats-Time-Stamp", "Nats-Num-Pending", "Nats-Last-Sequence"):
        headers.pop(name, None)
    return _Stored(sequence=sequence, subject=subject, data=bytes(message.data), headers=headers)
