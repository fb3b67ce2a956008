"""How the channels are kept by NATS: one stream each, and the durable consumers.

Owns: retention, limits and dedup of every stream. Does not know: the connection.

Streams keep everything up to a size and then refuse (`discard: new`): nothing is dropped in silence. They are not work
queues: those forget ids of consumed messages on a restart (nats-server #3272) and hold a poison message for ever.
"""

from __future__ import annotations

from nats.js import api

from jupiter.bus.codec import DEAD_CHANNEL, RAW_CHANNEL, STATUS_CHANNEL, channels
from jupiter.config.sections import NatsSection

__all__ = ["CANARY_CHANNEL", "consumer_config", "stream_configs", "stream_name"]

CANARY_CHANNEL = "canary"
CANARY_BYTES_MAX = 1 << 20
DAY_S = 86_400.0
EVENT_DEDUP_S = 30 * DAY_S
"""The same fact published again within this time is stored once: a service that was down with a committed manifest
publishes its event again when it comes back."""
FOREIGN_DEDUP_S = 3_600.0
"""For ids that users choose, and for dead letters."""
SHORT_DEDUP_S = 120.0


def stream_name(channel: str) -> str:
    return channel.upper()


def stream_configs(section: NatsSection) -> list[api.StreamConfig]:
    """Return every stream of the cycle."""
    return [_stream(channel, section) for channel in (*channels(), CANARY_CHANNEL)]


def _stream(channel: str, section: NatsSection) -> api.StreamConfig:
    dedup_s = {
        RAW_CHANNEL: FOREIGN_DEDUP_S,
        DEAD_CHANNEL: FOREIGN_DEDUP_S,
        STATUS_CHANNEL: SHORT_DEDUP_S,
        CANARY_CHANNEL: SHORT_DEDUP_S,
    }
    newest_only = channel in (STATUS_CHANNEL, CANARY_CHANNEL)
    return api.StreamConfig(
        name=stream_name(channel),
        subjects=[f"{channel}.>"],
        retention=api.RetentionPolicy.LIMITS,
        storage=api.StorageType.FILE,
        discard=api.DiscardPolicy.OLD if newest_only else api.DiscardPolicy.NEW,
        max_msgs_per_subject=1 if newest_only else -1,
        max_bytes=CANARY_BYTES_MAX if channel == CANARY_CHANNEL else section.stream_bytes_max,
        num_replicas=section.replicas,
        duplicate_window=dedup_s.get(channel, EVENT_DEDUP_S),
        allow_direct=True,
    )


def consumer_config(name: str, *, subject: str, max_ack_pending: int, ack_wait_s: float) -> api.ConsumerConfig:
    """Return a durable pull consumer. Attempts are counted in `deliveries`, which says why `max_deliver` is off."""
    return api.ConsumerConfig(
        durable_name=name,
        filter_subject=subject,
        deliver_policy=api.DeliverPolicy.ALL,
        ack_policy=api.AckPolicy.EXPLICIT,
        ack_wait=ack_wait_s,
        max_deliver=-1,
        max_ack_pending=max_ack_pending,
    )
