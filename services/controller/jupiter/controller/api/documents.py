"""Documents in, dead letters out.

Owns: the third door for documents (the others are NATS and the command line), and what to do with buried messages.
Does not know: what a good document is (the curator), nor why a message was buried (its reason says so).
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from jupiter import keys
from jupiter.controller.api.reading import WithDeps
from jupiter.controller.views import DeadLetterView, DocumentAnswer, ReplayAnswer
from jupiter.records import PublishedDocument, canonical_json, digest_of

__all__ = ["router"]

router = APIRouter()


@router.post("/documents", status_code=202)
async def publish(document: PublishedDocument, deps: WithDeps) -> DocumentAnswer:
    """Publish a document to the curator, as if it had come over NATS. Accepted means stored, not yet curated."""
    subject = keys.subject("documents", deps.runtime.domain)
    receipt = await deps.bus.publish_raw(
        subject, canonical_json(document), message_id=digest_of("document", deps.runtime.domain, document.model_dump())
    )
    return DocumentAnswer(subject=subject, sequence=receipt.sequence, duplicate=receipt.duplicate)


@router.get("/dead-letters")
async def dead_letters(
    deps: WithDeps, after: Annotated[int, Query(ge=0)] = 0, limit: Annotated[int, Query(ge=1, le=1_000)] = 100
) -> list[DeadLetterView]:
    """Messages that could not be handled, oldest first, with the reason; go on with `after` the last sequence."""
    return [
        DeadLetterView(
            sequence=letter.sequence,
            subject=letter.subject,
            origin_sequence=letter.origin_sequence,
            service=letter.service,
            reason=letter.reason,
            attempts=letter.attempts,
            time=letter.time,
            data=letter.data.decode("utf-8", errors="replace"),
        )
        for letter in await deps.bus.dead_letters(after=after, limit=limit)
    ]


@router.post("/dead-letters/{sequence}/replay")
async def replay(sequence: int, deps: WithDeps) -> ReplayAnswer:
    """Publish the message again where it came from, and remove it here."""
    receipt = await deps.bus.replay_dead_letter(sequence)
    return ReplayAnswer(sequence=receipt.sequence)


@router.delete("/dead-letters/{sequence}", status_code=204)
async def drop(sequence: int, deps: WithDeps) -> None:
    """Remove the message for good."""
    await deps.bus.drop_dead_letter(sequence)
