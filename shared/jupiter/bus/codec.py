"""Events to bytes and back: CloudEvents 1.0 in the NATS binary mode, and the form of a dead letter.

Owns: header names, the size limit, subject patterns, names of streams and consumers.
Does not know: which bus carries the bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime

from pydantic import ValidationError

from jupiter import trace
from jupiter.bus import DeadLetter, Delivery
from jupiter.errors import Rejected
from jupiter.events import EVENT_BYTES_MAX, Event, event_types
from jupiter.evolution import body_as

__all__ = [
    "DEAD_CHANNEL",
    "MESSAGE_ID",
    "RAW_CHANNEL",
    "STATUS_CHANNEL",
    "Encoded",
    "channel_of",
    "channels",
    "consumer_name",
    "decode",
    "encode",
    "encode_dead_letter",
    "first_errors",
    "matches",
    "read_dead_letter",
]

MESSAGE_ID = "Nats-Msg-Id"
RAW_CHANNEL = "documents"
"""What users publish: plain JSON, not an event."""
STATUS_CHANNEL = "status"
DEAD_CHANNEL = "dead"
_DEAD_LETTER = "Jupiter-Dead-Letter"
_REASON_CHARS_MAX = 4_000
_HEADERS_CHARS_MAX = 8_000


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A message ready to be published."""

    subject: str
    data: bytes
    headers: Mapping[str, str]
    message_id: str


def now() -> str:
    """Return the time as RFC 3339, UTC, milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def encode(event: Event, *, source: str) -> Encoded:
    """Return the event's wire form. Raises Rejected when it is larger than an event may be."""
    data = event.model_dump_json().encode()
    if len(data) > EVENT_BYTES_MAX:
        raise Rejected(
            f"{event.type_name()} {event.event_id[:12]} is {len(data)} bytes; an event may have {EVENT_BYTES_MAX}: "
            "store the payload as a blob and send its key"
        )
    here = trace.current()
    headers = {
        "ce-specversion": "1.0",
        "ce-id": event.event_id,
        "ce-type": event.type_name(),
        "ce-source": source,
        "ce-time": now(),
        "content-type": "application/json",
        trace.TRACEPARENT: (here or trace.Trace.new()).header(),
    }
    return Encoded(subject=event.subject, data=data, headers=headers, message_id=event.event_id)


def decode(data: bytes, headers: Mapping[str, str]) -> Event:
    """Return the event. Raises Rejected with the reason when the message is not one that we know."""
    lower = {name.lower(): value for name, value in headers.items()}
    type_name = lower.get("ce-type")
    if type_name is None:
        raise Rejected("the message has no ce-type header: it is not an event of Jupiter (docs/events.md)")
    cls = event_types().get(type_name)
    if cls is None:
        raise Rejected(f"unknown event type {type_name!r} (docs/events.md lists the known ones)")
    try:
        body = json.loads(data)
    except ValueError as error:
        raise Rejected(f"not a valid {type_name}: {error}") from error
    if not isinstance(body, dict):
        raise Rejected(f"not a valid {type_name}: the body is no JSON object")
    body = body_as(cls.current_version(), body, upcasts=cls.upcasts, name=type_name)
    try:
        return cls.model_validate_json(json.dumps(body))
    except ValidationError as error:
        raise Rejected(f"not a valid {type_name}: {first_errors(error)}") from error


def first_errors(error: ValidationError) -> str:
    """Say in one line what is wrong with a record: the first five errors, without repeating the input."""
    found = [
        f"{'.'.join(map(str, item['loc'])) or 'body'}: {item['msg']}" for item in error.errors(include_input=False)
    ]
    more = f" (and {len(found) - 5} more)" if len(found) > 5 else ""
    return "; ".join(found[:5]) + more


def encode_dead_letter(delivery: Delivery, *, service: str, reason: str) -> Encoded:
    """Return the dead letter of a delivery: its bytes as they came, and everything else in one JSON header.

    The id is the same however often the same delivery is buried, so a crash between bury and term doubles nothing.
    """
    headers = dict(delivery.headers)
    if sum(map(len, headers.values())) > _HEADERS_CHARS_MAX:  # of a foreign client; the server limits a header block
        headers = {name: value for name, value in headers.items() if name.lower().startswith("ce-")}
    about = {
        "subject": delivery.subject,
        "origin_sequence": delivery.sequence,
        "service": service,
        "reason": reason[:_REASON_CHARS_MAX],
        "attempts": delivery.attempts,
        "time": now(),
        "headers": headers,
    }
    return Encoded(
        subject=f"{DEAD_CHANNEL}.{delivery.subject}",
        data=delivery.data,
        headers={_DEAD_LETTER: json.dumps(about)},
        message_id=f"dead-{service}-{delivery.subject}-{delivery.sequence}",
    )


def read_dead_letter(sequence: int, data: bytes, headers: Mapping[str, str]) -> DeadLetter:
    """Return the dead letter that `encode_dead_letter` wrote."""
    about = json.loads(headers[_DEAD_LETTER])
    # A newer service may have said more.
    known = {field.name: about[field.name] for field in fields(DeadLetter) if field.name in about}
    return DeadLetter(sequence=sequence, data=data, **known)


def channels() -> tuple[str, ...]:
    """Return every channel of the cycle, `documents` and `dead` included: each is one stream."""
    of_events = {cls.channel for cls in event_types().values()}
    return (*sorted(of_events | {RAW_CHANNEL}), DEAD_CHANNEL)


def channel_of(subject: str) -> str:
    return subject.split(".", 1)[0]


def matches(pattern: str, subject: str) -> bool:
    """Tell whether a NATS subject pattern (`*` one token, `>` the rest) covers the subject."""
    wanted, tokens = pattern.split("."), subject.split(".")
    for index, part in enumerate(wanted):
        if part == ">":
            return len(tokens) > index
        if index >= len(tokens) or part not in ("*", tokens[index]):
            return False
    return len(wanted) == len(tokens)


def consumer_name(durable: str, subject: str) -> str:
    """Return the durable's name within its stream: domains share streams, so the domain is part of it."""
    rest = subject.split(".", 1)[1] if "." in subject else subject
    return re.sub(r"[^A-Za-z0-9_-]", "-", f"{durable}-{rest.replace('*', 'each').replace('>', 'all')}")
