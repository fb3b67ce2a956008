"""Publish a domain's built-in documents at the first start.

Owns: doing it once per `data_dir`. Does not know: what the documents are (`jupiter.domains`), nor what becomes of them.

They go to `documents.<domain>` as anybody's would. The message's id is the digest of its bytes and the curator knows a
document by its text, so an interrupted publication is simply done again.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import Iterable, Iterator
from typing import Protocol

from jupiter import keys
from jupiter.bus import Bus
from jupiter.config import ClusterConfig
from jupiter.config.loading import load_domain
from jupiter.domains import source
from jupiter.records import PublishedDocument, canonical_json

__all__ = ["publish", "publish_source"]


class Source(Protocol):
    """What `jupiter.domains.source` is: the documents of a built-in source by name."""

    def __call__(self, name: str, *, entries_max: int | None) -> Iterable[PublishedDocument]: ...


# In flight together: with `sync_interval: always` the server groups their disk writes.
CONCURRENT = 32


async def publish(bus: Bus, domain: str, documents: Iterable[PublishedDocument]) -> int:
    """Publish every document and return how many there were. Raises Unavailable."""
    sent = 0
    for batch in _batched(documents):
        await asyncio.gather(*(_publish_one(bus, domain, document) for document in batch))
        sent += len(batch)
    return sent


async def _publish_one(bus: Bus, domain: str, document: PublishedDocument) -> None:
    data = canonical_json(document)
    await bus.publish_raw(keys.subject("documents", domain), data, message_id=hashlib.sha256(data).hexdigest())


def _batched(documents: Iterable[PublishedDocument]) -> Iterator[list[PublishedDocument]]:
    remaining = iter(documents)
    while batch := list(itertools.islice(remaining, CONCURRENT)):
        yield batch


async def publish_source(config: ClusterConfig, bus: Bus, *, source: Source = source) -> int:
    """Publish the built-in source of the configured domain, once; return how many documents went out now."""
    name = load_domain(config.domain).source
    marker = config.data_dir / f"published-{config.domain}"
    if name is None or marker.exists():
        return 0
    documents = await asyncio.to_thread(list, source(name, entries_max=config.local.source_entries_max))
    count = await publish(bus, config.domain, documents)
    marker.write_text(f"{count} documents of {name}\n")
    return count
