"""The trainer's main loop.

Owns: the order of things. Does not know: how any of them is done (`session`).
"""

from __future__ import annotations

from jupiter.trainer.divergence import Diverged
from jupiter.trainer.session import Session

__all__ = ["run", "train"]


async def run(session: Session) -> None:
    """Train until told to stop; when training goes wrong, stay and say so."""
    try:
        await train(session)
    except Diverged as reason:
        await session.halt(reason)
    finally:
        await session.close()


async def train(session: Session) -> None:
    """Train on every shard as it arrives, for ever, saving a checkpoint whenever one is due."""
    await session.resume_or_begin()
    while await session.work_arrives():
        if session.rewind_due:
            await session.rewind()
        async with session.turn() as turn:
            while not session.checkpoint_due and await session.has_work() and not turn.should_yield():
                await session.step()
        if session.checkpoint_due:
            await session.checkpoint()
        elif session.snapshot_due:
            await session.snapshot()
    await session.snapshot()
