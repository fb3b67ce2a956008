"""What a rollback took back, and the recall of documents.

Owns: the routes. Does not know: what follows (`jupiter.controller.withdrawals`, `jupiter.controller.recall`).
"""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import Field

from jupiter.controller.api.access import acting
from jupiter.controller.api.reading import WithDeps
from jupiter.controller.recall import Recall, forget
from jupiter.controller.views import View
from jupiter.controller.withdrawals import Withdrawal, withdrawal

__all__ = ["router"]

router = APIRouter()


class ForgetBody(View):
    """Who recalls a document, and why."""

    actor: str = Field(default="api", min_length=1, max_length=200)
    reason: str = Field(default="by hand", min_length=1, max_length=1_000)


@router.get("/withdrawals/{ledger_sequence}")
async def taken_back(ledger_sequence: int, deps: WithDeps) -> Withdrawal:
    """Batches, shards and checkpoints affected by a rollback with quarantine, and the last clean checkpoint."""
    return await withdrawal(deps, ledger_sequence)


@router.post("/documents/{document:path}/forget")
async def forget_document(document: str, body: ForgetBody, deps: WithDeps, http: Request) -> Recall:
    """Leave a document, by id, prefix, source or title, out of all that is made from now on; list what came from it."""
    return await forget(deps, document, actor=acting(http, body.actor), reason=body.reason)
