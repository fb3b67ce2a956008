"""Is anything lost? Asked of a running cycle, while other work waits, is held, buried or delivered anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jupiter.bus import Delivery
from jupiter.controller.accounting import account
from jupiter.controller.burials import Burials
from jupiter.controller.conductor import Conductor
from jupiter.controller.deps import Deps
from jupiter.events import GenerationRequested, ServiceStatus
from tests.unit.controller.cases import DOMAIN
from tests.unit.controller.cycle import Cycle
from tests.unit.controller.test_metronome import batch_of, planned, ready, shard_of, voided


async def asked(directory: Path, count: int) -> tuple[Cycle, tuple[GenerationRequested, ...]]:
    """A cycle in which so many batches were asked for."""
    cycle = Cycle(directory, in_flight_requests_max=count)
    requests = planned(ready(20), cycle)
    for request in requests:
        await cycle.bus.publish(request)
    return cycle, requests


async def delivered(cycle: Cycle, channel: str, durable: str, count: int) -> list[Delivery]:
    deliveries: Any = cycle.bus.consume(f"{channel}.{DOMAIN}", durable=durable, max_ack_pending=count)
    return [await anext(deliveries) for _ in range(count)]


async def known(cycle: Cycle) -> Deps:
    """A controller that has just read the streams."""
    return (await cycle.parts(cycle.runtime())).deps


async def lost(cycle: Cycle) -> int:
    return (await account(await known(cycle))).lost


async def test_voids_behind_a_held_batch_hide_no_batch_that_was_acked_without_a_trace(tmp_path: Path) -> None:
    cycle, requests = await asked(tmp_path, 6)
    for request in requests[:3]:
        await cycle.bus.publish(batch_of(request))
    for request in requests[3:]:
        await cycle.bus.publish(voided(request))
    curated, vanished, _held = await delivered(cycle, "batches", "curator-batches", 3)
    await cycle.bus.publish(shard_of(requests[0]))
    await curated.ack()
    assert await lost(cycle) == 0
    await vanished.ack()
    assert await lost(cycle) == 1


async def test_without_its_consumer_everything_is_delivered_anew_and_nothing_is_lost(tmp_path: Path) -> None:
    """Streams that were restored without their consumers: open work is still to come, whatever was made of the rest."""
    cycle, requests = await asked(tmp_path, 3)
    for request in requests[:2]:
        await cycle.bus.publish(batch_of(request))
    await cycle.bus.publish(shard_of(requests[0]))
    assert await lost(cycle) == 0


async def test_a_letter_accounts_for_its_request_before_it_is_voided_and_after(tmp_path: Path) -> None:
    cycle, _ = await asked(tmp_path, 2)
    poison, vanished = await delivered(cycle, "generation", "generator", 2)
    deps = await known(cycle)
    await cycle.bus.bury(poison, service="generator", reason="unknown task")
    await poison.term()
    assert (await account(deps)).lost == 0
    await Burials(deps).give_up()
    assert (await account(deps)).lost == 0
    await vanished.ack()
    assert (await account(deps)).lost == await lost(cycle) == 1


async def test_what_was_replayed_is_still_to_come_until_it_is_acked_too(tmp_path: Path) -> None:
    """The letter was replayed before a controller saw it, so that nobody voided the request."""
    cycle, _ = await asked(tmp_path, 1)
    (poison,) = await delivered(cycle, "generation", "generator", 1)
    await cycle.bus.bury(poison, service="generator", reason="out of memory")
    await poison.term()
    (letter,) = await cycle.bus.dead_letters()
    await cycle.bus.replay_dead_letter(letter.sequence)
    assert await lost(cycle) == 0
    (replayed,) = await delivered(cycle, "generation", "generator", 1)
    assert await lost(cycle) == 0
    await replayed.ack()
    assert await lost(cycle) == 1


async def test_the_status_that_is_told_counts_it_too(tmp_path: Path) -> None:
    cycle, _ = await asked(tmp_path, 1)
    (vanished,) = await delivered(cycle, "generation", "generator", 1)
    await vanished.ack()
    deps = await known(cycle)
    await Conductor(deps).round()
    status = (await anext(cycle.bus.read(f"status.{DOMAIN}.>"))).event
    await deps.runtime.close()
    assert isinstance(status, ServiceStatus)
    assert status.figures["lost"] == 1
