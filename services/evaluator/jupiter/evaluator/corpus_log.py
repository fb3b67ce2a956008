"""The stream of accepted documents, followed from its beginning.

Owns: which documents there are and when the last one came. Does not know: what is made of them (`freezing`).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from jupiter.blobs import Blobs
from jupiter.bus import Bus
from jupiter.errors import IntegrityError
from jupiter.events import DocumentAccepted
from jupiter.records import Document

__all__ = ["CorpusLog", "read_documents"]

READERS = 8
"""Documents fetched at a time: each is a small object, so the time goes into waiting."""


class CorpusLog:
    """What `corpus.<domain>` has said so far."""

    def __init__(self) -> None:
        self.documents: dict[str, DocumentAccepted] = {}
        self._arrived = time.monotonic()

    @property
    def quiet_s(self) -> float:
        """Seconds since the last document, or since we began to listen."""
        return time.monotonic() - self._arrived

    @property
    def held_out(self) -> int:
        """Documents that a benchmark may be made from."""
        return sum(event.split == "held_out" for event in self.documents.values())

    async def follow(self, bus: Bus, domain: str) -> None:
        """Read the log and stay with it, until cancelled."""
        async for entry in bus.read(f"corpus.{domain}"):
            if isinstance(entry.event, DocumentAccepted):
                self.documents.setdefault(entry.event.document_id, entry.event)
                self._arrived = time.monotonic()


def read_documents(blobs: Blobs, documents: Sequence[DocumentAccepted]) -> list[Document]:
    """Fetch and verify the documents, and return them in the order of their ids. Blocks.

    The order of arrival is chance where many are published at a time; the same documents shall give the same benchmark.
    Raises NotFound, IntegrityError, Unavailable.
    """
    ordered = sorted(documents, key=lambda event: event.document_id)
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(lambda event: _read(blobs, event), ordered))


def _read(blobs: Blobs, event: DocumentAccepted) -> Document:
    document = Document.model_validate_json(blobs.get(event.key))
    seen = hashlib.sha256(document.text.encode()).hexdigest()
    if seen != event.document_id:
        raise IntegrityError(f"document {event.key} has text with sha256 {seen}: it was changed in the store")
    return document
