"""Two controller processes on one ledger: one cycle, whoever of them does what, and whoever is killed."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import httpx
import pytest

from jupiter.bus.jetstream import JetStreamBus
from jupiter.events import GenerationRequested
from jupiter.ledger import current, flips
from tests.integration.test_controller_process import _free_port, _on_servers, controller_process, flipped
from tests.servers import NatsServer, S3Server
from tests.unit.controller.cycle import Cycle

pytestmark = [pytest.mark.connected, pytest.mark.timeout(300)]

WAIT_S = 90.0
REQUESTS = 4


def another(cycle: Cycle) -> Cycle:
    """Return the same cycle as a second controller is configured: another port, nothing else."""
    twin = Cycle(Path(), bus=cycle.bus, blobs=cycle.blobs, name=cycle.name)
    controller = cycle.config.controller.model_copy(update={"port": _free_port()})
    twin.config = cycle.config.model_copy(update={"controller": controller, "instance": "other"})
    return twin


def url_of(cycle: Cycle) -> str:
    return f"http://127.0.0.1:{cycle.config.controller.port}"


async def ready(*cycles: Cycle) -> None:
    async with asyncio.timeout(WAIT_S), httpx.AsyncClient(trust_env=False) as client:
        for cycle in cycles:
            while True:
                try:
                    if (await client.get(f"{url_of(cycle)}/readyz")).is_success:
                        break
                except httpx.HTTPError:
                    pass
                await asyncio.sleep(0.1)


async def requests_of(cycle: Cycle, count: int) -> list[GenerationRequested]:
    """Wait until so many requests were issued, and return them all."""
    async with asyncio.timeout(WAIT_S):
        while True:
            found = [event for event in await cycle.events("generation") if isinstance(event, GenerationRequested)]
            if len(found) >= count:
                return found
            await asyncio.sleep(0.1)


async def raced_rollback(cycle: Cycle, other: Cycle, *, expected_version: int) -> list[int]:
    """Ask both controllers for the same rollback at once; return both answers."""
    body = {"expected_version": expected_version, "reason": "both were asked", "actor": "test"}
    async with httpx.AsyncClient(trust_env=False, timeout=WAIT_S) as client:
        answers = await asyncio.gather(
            *(client.post(f"{url_of(one)}/v1/rollback", json=body) for one in (cycle, other))
        )
    return sorted(answer.status_code for answer in answers)


async def test_two_controllers_are_one(
    nats_server: NatsServer, s3_server: S3Server, bus: JetStreamBus, domain: str, tmp_path: Path
) -> None:
    cycle = _on_servers(nats_server, s3_server, bus, domain, tmp_path)
    controller = cycle.config.controller.model_copy(update={"in_flight_requests_max": REQUESTS})
    cycle.config = cycle.config.model_copy(update={"controller": controller})
    other = another(cycle)
    with controller_process(cycle, tmp_path) as first, controller_process(other, tmp_path):
        await ready(cycle, other)
        await cycle.import_base()
        await flipped(cycle, 1)
        await cycle.freeze_benchmark()
        await cycle.publish_documents(10)
        await cycle.load(cycle.ledger()[0])
        requests = await requests_of(cycle, REQUESTS)
        await asyncio.sleep(3)  # several rounds of both: whoever wanted to ask again has done so
        requests = await requests_of(cycle, REQUESTS)
        assert Counter(request.sequence for request in requests) == Counter(range(1, REQUESTS + 1))

        await cycle.answer(await cycle.evaluate(await cycle.save_checkpoint(100)), wait_s=WAIT_S)
        await flipped(cycle, 2)
        await cycle.load(cycle.ledger()[-1])
        assert await raced_rollback(cycle, other, expected_version=2) == [200, 409]
        await flipped(cycle, 3)

        first.kill()
        first.wait()
        await cycle.answer(await cycle.evaluate(await cycle.save_checkpoint(200)), wait_s=WAIT_S)
        await flipped(cycle, 4)
        await ready(other)
    ledger = cycle.ledger()
    assert [entry.action for entry in flips(ledger)] == ["registered", "promoted", "rolled_back", "promoted"]
    live = current(ledger)
    assert live is not None
    assert live.version == 3
    announced = await cycle.events("generators")
    assert len({event.event_id for event in announced}) == len(announced)
    verdicts = await cycle.events("verdicts")
    assert len({event.event_id for event in verdicts}) == len(verdicts) == 2
