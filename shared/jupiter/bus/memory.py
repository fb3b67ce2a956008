"""The bus in this process: the twin of `jetstream`, for tests.

Owns: the same promises (dedup by id, acks, redelivery, dead letters) without a server.
Does not know: persistence; it forgets everything with the process.

It must be used from one event loop. `ack_wait_s` is the time after which an unacked message comes again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

from jupiter.bus import DeadLetter, Delivery, LogEntry, Outstanding, Receipt
from jupiter.bus.codec import (
    DEAD_CHANNEL,
    STATUS_CHANNEL,
    channel_of,
    consumer_name,
    decode,
    encode,
    encode_dead_letter,
    matches,
    read_dead_letter,
)
from jupiter.errors import NotFound, Rejected, Unavailable
from jupiter.events import Event

__all__ = ["MemoryBus", "MemoryDelivery"]


@dataclass(frozen=True, kw_only=True)
class _Message:
    sequence: int
    subject: str
    data: bytes
    headers: Mapping[str, str]


@dataclass
class _Stream:
    messages: dict[int, _Message] = field(default_factory=dict)
    ids: dict[str, int] = field(default_factory=dict)
    last: int = 0


@dataclass
class _Consumer:
    """The state of one durable: how far it is, and what is delivered or due again (loop time)."""

    position: int = 0
    attempts: dict[int, int] = field(default_factory=dict)
    due_at: dict[int, float] = field(default_factory=dict)
    """Sequence -> when it is delivered again: it is pending until acked or termed."""


class MemoryDelivery:
    """One message of a MemoryBus; see `Delivery`."""

    def __init__(self, bus: MemoryBus, consumer: _Consumer, message: _Message, attempts: int) -> None:
        self._bus, self._consumer, self._message, self._attempts = bus, consumer, message, attempts

    @property
    def subject(self) -> str:
        return self._message.subject

    @property
    def data(self) -> bytes:
        return self._message.data

    @property
    def headers(self) -> Mapping[str, str]:
        return self._message.headers

    @property
    def sequence(self) -> int:
        return self._message.sequence

    @property
    def attempts(self) -> int:
        return self._attempts

    async def ack(self) -> None:
        self._consumer.due_at.pop(self.sequence, None)
        await self._bus.wake()

    async def nak(self, *, delay_s: float) -> None:
        await self._postpone(delay_s)

    async def term(self) -> None:
        await self.ack()

    async def in_progress(self) -> None:
        await self._postpone(self._bus.ack_wait_s)

    async def _postpone(self, seconds: float) -> None:
        if self.sequence in self._consumer.due_at:
            self._consumer.due_at[self.sequence] = asyncio.get_running_loop().time() + seconds
        await self._bus.wake()


class MemoryBus:
    """See `Bus`. One instance is the server and every client of it."""

    def __init__(self, *, source: str = "jupiter/test", ack_wait_s: float = 30.0) -> None:
        self.ack_wait_s = ack_wait_s
        self.unreadable = 0
        """Log entries that `read` skipped."""
        self.available = True
        """Tests set it to False: every publish then raises Unavailable."""
        self._source = source
        self._streams: dict[str, _Stream] = {}
        self._consumers: dict[tuple[str, str], _Consumer] = {}
        self._changed = asyncio.Condition()

    async def start(self) -> None:
        """Nothing to connect to."""

    async def close(self) -> None:
        """Nothing to close."""

    async def wake(self) -> None:
        """Let every waiting consumer look again."""
        async with self._changed:
            self._changed.notify_all()

    async def publish(self, event: Event) -> Receipt:
        encoded = encode(event, source=self._source)
        return await self.publish_raw(
            encoded.subject, encoded.data, message_id=encoded.message_id, headers=encoded.headers
        )

    async def publish_raw(
        self, subject: str, data: bytes, *, message_id: str | None = None, headers: Mapping[str, str] | None = None
    ) -> Receipt:
        await asyncio.sleep(0)
        if not self.available:
            raise Unavailable("the in-memory bus was made unavailable by the test")
        stream = self._stream(channel_of(subject))
        if message_id is not None and message_id in stream.ids:
            return Receipt(sequence=stream.ids[message_id], duplicate=True)
        stream.last += 1
        if channel_of(subject) == STATUS_CHANNEL:  # only the newest per subject is kept
            for old in [message for message in stream.messages.values() if message.subject == subject]:
                del stream.messages[old.sequence]
        stream.messages[stream.last] = _Message(
            sequence=stream.last, subject=subject, data=data, headers=dict(headers or {})
        )
        if message_id is not None:
            stream.ids[message_id] = stream.last
        await self.wake()
        return Receipt(sequence=stream.last, duplicate=False)

    async def consume(self, subject: str, *, durable: str, max_ack_pending: int) -> AsyncIterator[MemoryDelivery]:
        stream = self._stream(channel_of(subject))
        consumer = self._consumers.setdefault((channel_of(subject), consumer_name(durable, subject)), _Consumer())
        while True:
            message = self._take(stream, consumer, subject, max_ack_pending)
            if message is None:
                await self._wait(min(consumer.due_at.values(), default=None))
                continue
            yield MemoryDelivery(self, consumer, message, consumer.attempts[message.sequence])

    def _take(self, stream: _Stream, consumer: _Consumer, pattern: str, max_ack_pending: int) -> _Message | None:
        """Choose the next message: what is due again before what is new."""
        now = asyncio.get_running_loop().time()
        due = sorted(sequence for sequence, at in consumer.due_at.items() if at <= now)
        fresh = (s for s in stream.messages if s > consumer.position and matches(pattern, stream.messages[s].subject))
        sequence = due[0] if due else next(fresh, None) if len(consumer.due_at) < max_ack_pending else None
        if sequence is None:
            return None
        consumer.position = max(consumer.position, sequence)
        consumer.attempts[sequence] = consumer.attempts.get(sequence, 0) + 1
        consumer.due_at[sequence] = now + self.ack_wait_s
        return stream.messages[sequence]

    async def _wait(self, until: float | None) -> None:
        """Sleep until something changes or the loop's clock reads `until`."""
        timeout_s = None if until is None else max(0.0, until - asyncio.get_running_loop().time())
        try:
            async with asyncio.timeout(timeout_s), self._changed:
                await self._changed.wait()
        except TimeoutError:
            return

    async def read(self, subject: str, *, after: int = 0, follow: bool = True) -> AsyncIterator[LogEntry]:
        stream = self._stream(channel_of(subject))
        end = stream.last
        while follow or after < end:
            message = next((m for s, m in stream.messages.items() if s > after and matches(subject, m.subject)), None)
            if message is None or (not follow and message.sequence > end):
                if not follow:
                    return
                await self._wait(None)
                continue
            after = message.sequence
            try:
                event = decode(message.data, message.headers)
            except Rejected:
                self.unreadable += 1
                continue
            yield LogEntry(sequence=message.sequence, event=event)

    async def last_sequence(self, channel: str) -> int:
        return self._stream(channel).last

    async def backlog(self, subject: str, *, durable: str) -> int:
        stream = self._stream(channel_of(subject))
        consumer = self._consumers.get((channel_of(subject), consumer_name(durable, subject)))
        if consumer is None:
            return 0
        fresh = [s for s, m in stream.messages.items() if s > consumer.position and matches(subject, m.subject)]
        return len(fresh) + len(consumer.due_at)

    async def outstanding(self, subject: str, *, durable: str) -> Outstanding:
        consumer = self._consumers.get((channel_of(subject), consumer_name(durable, subject)))
        if consumer is None:
            return Outstanding()
        return Outstanding(
            acked_through=min(consumer.due_at, default=consumer.position + 1) - 1,
            delivered_through=consumer.position,
            unacked=len(consumer.due_at),
        )

    async def bury(self, delivery: Delivery, *, service: str, reason: str) -> None:
        letter = encode_dead_letter(delivery, service=service, reason=reason)
        await self.publish_raw(letter.subject, letter.data, message_id=letter.message_id, headers=letter.headers)

    async def dead_letters(self, *, after: int = 0, limit: int = 100) -> list[DeadLetter]:
        found = [message for message in self._stream(DEAD_CHANNEL).messages.values() if message.sequence > after]
        return [read_dead_letter(message.sequence, message.data, message.headers) for message in found[:limit]]

    async def dead_letter_count(self) -> int:
        return len(self._stream(DEAD_CHANNEL).messages)

    async def replay_dead_letter(self, sequence: int) -> Receipt:
        message = self._dead(sequence)
        letter = read_dead_letter(sequence, message.data, message.headers)
        receipt = await self.publish_raw(
            letter.subject, letter.data, message_id=f"replay-{sequence}", headers=letter.headers
        )
        await self.drop_dead_letter(sequence)
        return receipt

    async def drop_dead_letter(self, sequence: int) -> None:
        self._dead(sequence)
        del self._stream(DEAD_CHANNEL).messages[sequence]

    async def ready(self) -> None:
        if not self.available:
            raise Unavailable("the in-memory bus was made unavailable by the test")

    def _dead(self, sequence: int) -> _Message:
        message = self._stream(DEAD_CHANNEL).messages.get(sequence)
        if message is None:
            raise NotFound(f"there is no dead letter {sequence}")
        return message

    def _stream(self, channel: str) -> _Stream:
        return self._streams.setdefault(channel, _Stream())
