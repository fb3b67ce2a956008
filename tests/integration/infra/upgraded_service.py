"""A service of the next release: its `BatchGenerated` is of version 2. It answers each batch with one that it made.

Run as `python -m tests.integration.infra.upgraded_service`; settings by the environment, as for every service.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from jupiter import events
from jupiter.config.loading import config_from_arguments
from jupiter.events import Event
from jupiter.evolution import Upcast
from jupiter.records import digest_of
from jupiter.service import Runtime, ServiceParts, Subscription, run_service


class BatchGenerated(events.BatchGenerated):
    """Version 2: says how many samples were unusable, which version 1 never counted."""

    upcasts: ClassVar[Mapping[int, Upcast]] = {1: lambda body: {**body, "unusable": 0}}
    schema_version: Literal[2] = 2  # type: ignore[assignment]
    unusable: int


async def answer(event: BatchGenerated, _: None) -> Sequence[Event]:
    if event.unusable:
        return []  # our own
    return [event.model_copy(update={"batch_id": digest_of("answer", event.batch_id), "unusable": event.samples + 1})]


async def setup(_: Runtime) -> ServiceParts[None]:
    subscription = Subscription(channel="batches", durable="upgraded", handlers={BatchGenerated: answer})
    return ServiceParts(deps=None, subscriptions=[subscription])


if __name__ == "__main__":
    asyncio.run(run_service(name="upgraded", config=config_from_arguments("upgraded"), setup=setup))
