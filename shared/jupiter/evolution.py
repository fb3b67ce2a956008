"""Schema versions of events side by side: what readers of another version make of a body.

Owns: the rule by which a body of one version is read by another. Does not know: any event, nor how bodies travel.

A cluster is upgraded one node at a time, so services of versions N-1 and N publish and read the same streams, and the
streams keep every version there ever was.

- The new reads the old: a class of version N names in `upcasts`, for every version before, how its body becomes one of
  the next; they are applied one after the other, so the oldest entry of a log stays readable.
- The old reads the new: version N may add fields and must go on filling those of N-1, which N-1 reads, passing over
  what it does not know. What is two versions newer is refused, for fields may be gone by then: the reason says so, and
  the dead letter can be replayed once the reader is upgraded.
- The identity fields never change: a fact published by both versions has one id, and the stream keeps it once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from jupiter.errors import Rejected

__all__ = ["AHEAD_MAX", "Upcast", "body_as"]

Body = Mapping[str, Any]
Upcast = Callable[[Body], Body]
"""Takes a body of some version, returns it as one of the next; `schema_version` is taken care of."""

AHEAD_MAX = 1
"""Versions that a body may be ahead of its reader."""
FIELD = "schema_version"


def body_as(version: int, body: Body, *, upcasts: Mapping[int, Upcast], name: str) -> Body:
    """Return the body as a reader of `version` takes it. Raises Rejected when that cannot be."""
    seen = body.get(FIELD, 1)
    if not isinstance(seen, int) or isinstance(seen, bool) or seen < 1:
        raise Rejected(f"{name}: {FIELD} is {seen!r}; a whole number from 1 is expected")
    if seen > version + AHEAD_MAX:
        raise Rejected(
            f"{name} is of schema version {seen}; this service reads up to {version + AHEAD_MAX}: upgrade it, then "
            "replay the message"
        )
    for older in range(seen, version):
        body = upcasts[older](body)
    return {**body, FIELD: version}
