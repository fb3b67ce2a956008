"""The frozen benchmarks of a domain, one generation after the other: which there are, and which one is in use.

Owns: the pointers `benchmarks/<domain>/frozen`, `frozen-2`, … Does not know: what a benchmark consists of, nor when
another one is wanted.

A pointer is created if absent and never changed, so whoever reads as far sees the same benchmarks. The newest is in
use; the older ones stay, for what was opened on them is finished on them.
"""

from __future__ import annotations

from pydantic import ValidationError

from jupiter import keys
from jupiter.blobs import Blobs
from jupiter.errors import IntegrityError, NotFound
from jupiter.records import SharedRecord, canonical_json

__all__ = ["Pointer", "is_newest", "point", "pointers"]


class Pointer(SharedRecord):
    """Where the benchmark of one generation stands."""

    digest: str
    manifest_key: str
    manifest_sha256: str


def pointers(blobs: Blobs, domain: str) -> tuple[Pointer, ...]:
    """Return the pointer of every generation, the first one first; none before one is frozen. Raises IntegrityError.

    Read by number and not by listing: a pointer that was just created is then always seen.
    """
    found: list[Pointer] = []
    while True:
        key = keys.benchmark_pointer_key(domain, len(found) + 1)
        try:
            found.append(Pointer.model_validate_json(blobs.get(key)))
        except NotFound:
            return tuple(found)
        except ValidationError as error:
            raise IntegrityError(f"the pointer {key} is not readable: {error}") from error


def is_newest(blobs: Blobs, domain: str, generation: int) -> bool:
    """Return whether no later benchmark is frozen: one small request."""
    return blobs.stat(keys.benchmark_pointer_key(domain, generation + 1)) is None


def point(blobs: Blobs, domain: str, generation: int, pointer: Pointer) -> bool:
    """Create the pointer of the generation; False when another benchmark was frozen as that one first."""
    return blobs.create(keys.benchmark_pointer_key(domain, generation), canonical_json(pointer))
