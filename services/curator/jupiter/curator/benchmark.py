"""What the curator keeps out of shards: the texts of the benchmark in use.

Owns: reading them from the store. Does not know: the overlap rule (`jupiter.overlap.forbidden`), what the items ask
or how they are scored.
"""

from __future__ import annotations

from dataclasses import dataclass

from jupiter import generations, keys, manifests
from jupiter.blobs import Blobs
from jupiter.errors import IntegrityError
from jupiter.overlap.forbidden import ForbiddenTexts, forbidden_items
from jupiter.sample_files import read_json_lines

__all__ = ["Forbidden", "read_forbidden"]

ITEMS_FILE = "items.jsonl.zst"


@dataclass(frozen=True, kw_only=True)
class Forbidden:
    """The texts, and which generation of the benchmark they are of."""

    texts: ForbiddenTexts
    generation: int


def read_forbidden(blobs: Blobs, domain: str, *, threshold: float) -> Forbidden | None:
    """Return the texts of the newest frozen benchmark, None while there is none. Raises IntegrityError."""
    pointers = generations.pointers(blobs, domain)
    if not pointers:
        return None
    pointer = pointers[-1]
    manifest = manifests.read(blobs, pointer.manifest_key, sha256=pointer.manifest_sha256).manifest
    items = forbidden_items(read_json_lines(manifests.download_bytes(blobs, manifest.file(ITEMS_FILE))))
    if not items:
        raise IntegrityError(f"benchmark {keys.benchmark_prefix(domain, pointer.digest)} has no items")
    return Forbidden(texts=ForbiddenTexts(items, threshold=threshold, digest=pointer.digest), generation=len(pointers))
