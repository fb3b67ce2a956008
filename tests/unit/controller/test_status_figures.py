"""Figures of the status that are easily wrong: documents by split, the next evaluation, dead letters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx

from jupiter.bus import DeadLetter
from jupiter.bus.memory import MemoryBus
from jupiter.controller.wiring import application
from jupiter.events import DocumentForgotten
from jupiter.records import digest_of
from tests.unit.controller.cases import DOMAIN
from tests.unit.controller.cycle import Cycle, accepted


async def status_of(cycle: Cycle) -> Any:
    deps = (await cycle.parts(cycle.runtime())).deps
    transport = httpx.ASGITransport(app=application(deps))
    async with httpx.AsyncClient(transport=transport, base_url="http://controller") as client:
        return (await client.get("/v1/status")).json()


async def forget(cycle: Cycle, document_id: str) -> None:
    await cycle.bus.publish(DocumentForgotten(domain=DOMAIN, document_id=document_id, actor="ada", reason="asked to"))


async def test_documents_are_counted_by_their_split(tmp_path: Path) -> None:
    cycle = Cycle(tmp_path)
    first, *_ = await cycle.publish_documents(4)
    await forget(cycle, first)

    async def said() -> tuple[int, int, str]:
        status = await status_of(cycle)
        return status["documents_training"], status["documents_held_out"], status["stages"][0]["detail"]

    assert await said() == (3, 0, "3 to train on, 0 held out")
    held_out = [digest_of("held out", number) for number in range(2)]
    for document_id in held_out:
        await cycle.bus.publish(accepted(document_id, split="held_out"))
    assert await said() == (3, 2, "3 to train on, 2 held out")
    await forget(cycle, held_out[0])
    assert await said() == (3, 1, "3 to train on, 1 held out")


async def test_the_next_evaluation_is_that_of_the_run_that_the_trainer_is_in(tmp_path: Path) -> None:
    cycle = Cycle(tmp_path, self_improvement={"eval_every_steps": 5_000})
    assert (await status_of(cycle))["next_evaluation"] is None
    await cycle.save_checkpoint(100_000)
    assert (await status_of(cycle))["next_evaluation"]["step"] == 105_000
    await cycle.save_checkpoint(5_000, run="run2")
    assert (await status_of(cycle))["next_evaluation"] == {"step": 10_000, "current_step": 5_000, "eta_s": None}
    await cycle.say("trainer", done=5_200, total=10_000, unit="steps", rate_per_s=2.0, figures={"step": 5_200})
    assert (await status_of(cycle))["next_evaluation"] == {"step": 10_000, "current_step": 5_200, "eta_s": 2_400.0}
    await cycle.say("trainer", done=300, total=5_000, unit="steps", figures={"step": 300})  # it was sent back
    assert (await status_of(cycle))["next_evaluation"] == {"step": 5_000, "current_step": 300, "eta_s": None}


class CountedBus(MemoryBus):
    """Counts the dead letters that were fetched whole."""

    fetched = 0

    async def dead_letters(self, *, after: int = 0, limit: int = 100) -> list[DeadLetter]:
        found = await super().dead_letters(after=after, limit=limit)
        self.fetched += len(found)
        return found


async def test_dead_letters_are_counted_and_not_fetched(tmp_path: Path) -> None:
    bus = CountedBus()
    cycle = Cycle(tmp_path, bus=bus)
    subjects = [f"documents.{DOMAIN}", f"documents.{DOMAIN}", "documents.another"]
    for subject in subjects:
        await bus.publish_raw(subject, b"not JSON")
        delivery = await anext(bus.consume(subject, durable="curator", max_ack_pending=10))
        await bus.bury(delivery, service="curator", reason="not JSON")
    # Of every domain, as `dead-letters list` shows them.
    assert (await status_of(cycle))["dead_letters"] == len(subjects)
    assert bus.fetched == 0
