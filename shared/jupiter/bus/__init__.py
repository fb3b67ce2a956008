"""The message bus as the services see it.

Owns: the contract that both buses keep (`jetstream.JetStreamBus` and `memory.MemoryBus`, one contract test).
Does not know: what an event means, nor when a message is acked (`service` decides that alone).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from jupiter.events import Event

__all__ = ["Bus", "DeadLetter", "Delivery", "LogEntry", "Outstanding", "Receipt"]


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """The server stored the message; `duplicate` when its id was already there."""

    sequence: int
    duplicate: bool


@dataclass(frozen=True, kw_only=True)
class LogEntry:
    """One stored event, read as a log."""

    sequence: int
    event: Event


@dataclass(frozen=True, kw_only=True)
class Outstanding:
    """Where a durable consumer is in its subject: which messages it has acked, and which it has still before it."""

    acked_through: int = 0
    """Every message up to this sequence is acked."""
    delivered_through: int = 0
    """No message after this sequence was ever delivered."""
    unacked: int = 0
    """How many between the two are not acked. The first one after `acked_through` is one of them."""


@dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """A message that could not be handled: with its origin, reason and bytes."""

    sequence: int
    subject: str
    origin_sequence: int
    service: str
    reason: str
    attempts: int
    time: str
    data: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class Delivery(Protocol):
    """One message handed to a consumer; exactly one of ack, nak, term ends it."""

    @property
    def subject(self) -> str: ...
    @property
    def data(self) -> bytes: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def sequence(self) -> int: ...
    @property
    def attempts(self) -> int:
        """1 on the first delivery."""
        ...

    async def ack(self) -> None: ...
    async def nak(self, *, delay_s: float) -> None: ...
    async def term(self) -> None: ...
    async def in_progress(self) -> None: ...


class Bus(Protocol):
    """Publish facts, consume them as work, read them as a log."""

    async def start(self) -> None:
        """Connect (retrying) and create or check the streams. Raises Unavailable."""
        ...

    async def close(self) -> None: ...

    async def publish(self, event: Event) -> Receipt:
        """Store the event once (its `event_id` deduplicates), retrying on time-outs. Raises Unavailable."""
        ...

    async def publish_raw(
        self, subject: str, data: bytes, *, message_id: str | None = None, headers: Mapping[str, str] | None = None
    ) -> Receipt: ...

    def consume(self, subject: str, *, durable: str, max_ack_pending: int) -> AsyncIterator[Delivery]:
        """Yield work from a durable consumer; unacked messages come again after `ack_wait` (30 s)."""
        ...

    def read(self, subject: str, *, after: int = 0, follow: bool = True) -> AsyncIterator[LogEntry]:
        """Yield stored events in order with sequence > `after`; without `follow`, end at the last one.

        `subject` may hold wildcards. An unreadable entry is skipped and counted, never raised.
        """
        ...

    async def last_sequence(self, channel: str) -> int:
        """Return the sequence of the newest message of the channel's stream, 0 when empty."""
        ...

    async def backlog(self, subject: str, *, durable: str) -> int:
        """Return how many messages of `subject` the durable has not acked yet, 0 when it never consumed."""
        ...

    async def outstanding(self, subject: str, *, durable: str) -> Outstanding:
        """Return where the durable is, by stream sequence; all zeros when it never consumed."""
        ...

    async def bury(self, delivery: Delivery, *, service: str, reason: str) -> None:
        """Store the delivery in the dead letters, durably, before it is termed."""
        ...

    async def dead_letters(self, *, after: int = 0, limit: int = 100) -> list[DeadLetter]: ...
    async def dead_letter_count(self) -> int:
        """Return how many there are, of all domains, without reading any."""
        ...

    async def replay_dead_letter(self, sequence: int) -> Receipt: ...
    async def drop_dead_letter(self, sequence: int) -> None: ...

    async def ready(self) -> None:
        """Do a real canary publish. Raises Unavailable with the reason."""
        ...
