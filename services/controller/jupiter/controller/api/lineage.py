"""Lineage, forwards and backwards.

Owns: the route. Does not know: how the chain is put together (`jupiter.controller.lineage`).
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from jupiter.controller.api.reading import WithDeps
from jupiter.controller.lineage import Lineage, lineage
from jupiter.controller.recall import Recall

__all__ = ["router"]

router = APIRouter()


@router.get("/lineage/{name:path}")
async def lineage_of(
    name: str,
    deps: WithDeps,
    samples: Annotated[bool, Query(description="Name every sample of every shard: the answer may be long")] = False,
) -> Lineage | Recall:
    """What is behind a version (`v3`) or a checkpoint, or what came from a document (id, prefix, source or title)."""
    return await lineage(deps, name, samples=samples)
