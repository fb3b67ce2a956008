"""The trainer in one process on the in-memory twins: shards in, checkpoints out, restarts between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from jupiter import keys, manifests
from jupiter.blobs.memory import MemoryBlobs
from jupiter.bus.memory import MemoryBus
from jupiter.config import ClusterConfig
from jupiter.errors import ConfigError
from jupiter.events import CheckpointSaved, ServiceStatus
from jupiter.manifests import Committed
from jupiter.modeling import attest, load_model, read_golden
from jupiter.service import Runtime, running
from jupiter.trainer.handlers import parts
from tests.unit.trainer.material import commit_shard, config_for, register_base, sample

WAIT_S_MAX = 60.0
DOMAIN = "tiny"


@pytest.fixture
def bus() -> MemoryBus:
    return MemoryBus()


@pytest.fixture
def blobs(tmp_path: Path) -> MemoryBlobs:
    blobs = MemoryBlobs()
    register_base(blobs, DOMAIN, tmp_path / "base")
    return blobs


@asynccontextmanager
async def trainer(config: ClusterConfig, bus: MemoryBus, blobs: MemoryBlobs) -> AsyncIterator[Runtime]:
    runtime = Runtime.in_memory(name="trainer", config=config, bus=bus, blobs=blobs)
    async with running(runtime, parts(runtime)):
        yield runtime


async def until(what: Callable[[], Awaitable[Any]]) -> Any:
    async with asyncio.timeout(WAIT_S_MAX):
        while not (found := await what()):  # noqa: ASYNC110 - what is waited for is in another task
            await asyncio.sleep(0.02)
    return found


async def saved(bus: MemoryBus) -> list[CheckpointSaved]:
    entries = [entry.event async for entry in bus.read(f"checkpoints.{DOMAIN}", follow=False)]
    return [event for event in entries if isinstance(event, CheckpointSaved)]


async def status(bus: MemoryBus) -> ServiceStatus | None:
    entries = [entry.event async for entry in bus.read("status.>", follow=False)]
    return next((event for event in entries if isinstance(event, ServiceStatus)), None)


async def checkpoints_at(bus: MemoryBus, steps: set[int]) -> list[CheckpointSaved]:
    found = await saved(bus)
    return found if steps <= {event.step for event in found} else []


def committed_at(blobs: MemoryBlobs, step: int, run: str = "run1") -> Committed:
    return manifests.read(blobs, keys.manifest_key(keys.checkpoint_prefix(DOMAIN, run, step)))


async def publish_shards(bus: MemoryBus, blobs: MemoryBlobs, numbers: range) -> None:
    for number in numbers:
        await bus.publish(commit_shard(blobs, DOMAIN, number))


async def test_shards_become_a_checkpoint_that_a_generator_can_attest(
    bus: MemoryBus, blobs: MemoryBlobs, tmp_path: Path
) -> None:
    await publish_shards(bus, blobs, range(3))
    async with trainer(config_for(tmp_path / "data"), bus, blobs):
        events = await until(lambda: checkpoints_at(bus, {4, 8}))
    assert [event.step for event in events] == sorted({event.step for event in events})
    committed = committed_at(blobs, 4)
    assert committed.sha256 == events[0].manifest_sha256
    manifests.fetch(blobs, committed.manifest, tmp_path / "fetched")
    model, tokenizer = load_model(tmp_path / "fetched" / "model")
    attest(model, tokenizer, tmp_path / "fetched" / "model", read_golden(tmp_path / "fetched" / "golden.json"), 1e-4)
    details = committed.manifest.details
    assert details["step"] == 4
    assert details["shards"] == [
        commit_shard(blobs, DOMAIN, number).shard_id for number in range(len(details["shards"]))
    ]
    assert details["base_manifest_sha256"] == manifests.read(blobs, f"generators/{DOMAIN}/v1/manifest.json").sha256
    assert details["config"]["learning_rate"] == 1e-3
    assert details["control"] == "none"


async def test_it_waits_for_the_base_and_for_shards_and_says_so(bus: MemoryBus, tmp_path: Path) -> None:
    blobs = MemoryBlobs()

    async def waits_for(what: str) -> bool:
        found = await status(bus)
        return found is not None and found.stage == "waiting" and what in found.detail

    async with trainer(config_for(tmp_path / "data"), bus, blobs):
        await until(lambda: waits_for("generator version 1"))
        register_base(blobs, DOMAIN, tmp_path / "base")
        await until(lambda: waits_for("shard after 0"))
        await publish_shards(bus, blobs, range(2))
        await until(lambda: waits_for("shard after 2"))
    found = await status(bus)
    assert found is not None
    assert found.figures["shard_sequence"] == 2
    assert found.figures["step"] == found.done
    assert found.total is not None
    assert found.done is not None
    assert found.total > found.done


async def test_a_stopped_run_goes_on_bit_equal(bus: MemoryBus, blobs: MemoryBlobs, tmp_path: Path) -> None:
    """Two runs over the same shards, one of them stopped and started at every turn, end in the same weights."""
    await publish_shards(bus, blobs, range(4))
    async with trainer(config_for(tmp_path / "whole", run="whole"), bus, blobs):
        await until(lambda: checkpoints_at(bus, {4, 8, 12}))
    for step in (3, 5, 9, 12):

        async def reached(step: int = step) -> bool:
            found = await status(bus)
            return found is not None and (found.done or 0) >= step and found.detail != "run whole"

        async with trainer(config_for(tmp_path / "parts", run="parts"), bus, blobs):
            await until(reached)

    def weights(run: str) -> list[str]:
        files = committed_at(blobs, 12, run).manifest.files
        return [ref.sha256 for ref in files if ref.name.endswith(".safetensors")]

    async def parted() -> bool:
        return blobs.stat(keys.manifest_key(keys.checkpoint_prefix(DOMAIN, "parts", 12))) is not None

    async with trainer(config_for(tmp_path / "parts", run="parts"), bus, blobs):
        await until(parted)
    assert weights("parts") == weights("whole")


async def test_an_unpublished_checkpoint_is_published_once(bus: MemoryBus, blobs: MemoryBlobs, tmp_path: Path) -> None:
    await publish_shards(bus, blobs, range(2))
    async with trainer(config_for(tmp_path / "data"), bus, blobs):
        await until(lambda: checkpoints_at(bus, {4}))
    newest = (await saved(bus))[-1]
    other = MemoryBus()  # a bus that never saw the event: the trainer died between manifest and event
    async with trainer(config_for(tmp_path / "data"), other, blobs):
        found = await until(lambda: saved(other))
    async with trainer(config_for(tmp_path / "data"), other, blobs):
        await until(lambda: status(other))
    assert [event.checkpoint_id for event in found] == [newest.checkpoint_id]
    assert len(await saved(other)) == 1


async def test_a_damaged_checkpoint_is_passed_over(bus: MemoryBus, blobs: MemoryBlobs, tmp_path: Path) -> None:
    await publish_shards(bus, blobs, range(4))
    async with trainer(config_for(tmp_path / "data"), bus, blobs):
        await until(lambda: checkpoints_at(bus, {4, 8}))
    newest = max(event.step for event in await saved(bus))
    blobs.put(committed_at(blobs, newest).manifest.file("training_state.safetensors").key, b"damaged")
    async with trainer(config_for(tmp_path / "elsewhere"), bus, blobs):  # a fresh disk: no snapshot helps

        async def healed() -> bool:
            found = await status(bus)
            return found is not None and found.stage == "waiting" and (found.done or 0) >= newest

        await until(healed)
    assert len(await saved(bus)) == len({event.step for event in await saved(bus)})
    manifests.fetch(blobs, committed_at(blobs, newest).manifest, tmp_path / "fetched")  # the same bytes again


async def test_divergence_stops_at_the_last_good_checkpoint(bus: MemoryBus, blobs: MemoryBlobs, tmp_path: Path) -> None:
    await publish_shards(bus, blobs, range(8))

    async def stage(name: str) -> bool:
        found = await status(bus)
        return found is not None and found.stage == name

    config = config_for(tmp_path / "data", learning_rate=1e9, warmup_steps=0, gradient_clip=1e9, eval_every_steps=1000)
    async with trainer(config, bus, blobs) as runtime:
        await until(lambda: stage("diverged"))
        assert runtime.telemetry.registry.get_sample_value("jupiter_trainer_diverged") == 1
    found = await status(bus)
    assert found is not None
    assert "last good checkpoint is step 0" in found.detail
    assert await saved(bus) == []


async def test_shards_that_are_empty_or_gone_do_not_stop_the_run(
    bus: MemoryBus, blobs: MemoryBlobs, tmp_path: Path
) -> None:
    await bus.publish(commit_shard(blobs, DOMAIN, 0, samples=[]))
    gone = commit_shard(blobs, DOMAIN, 1)
    blobs.delete(gone.manifest_key)
    await bus.publish(gone)
    await publish_shards(bus, blobs, range(2, 5))
    async with trainer(config_for(tmp_path / "data"), bus, blobs):
        await until(lambda: checkpoints_at(bus, {4}))
    details = committed_at(blobs, 4).manifest.details
    assert details["samples"]["unreadable"] == 1
    assert gone.shard_id in details["shards"]


async def test_the_control_is_visible_in_the_checkpoint(bus: MemoryBus, blobs: MemoryBlobs, tmp_path: Path) -> None:
    await publish_shards(bus, blobs, range(3))
    async with trainer(config_for(tmp_path / "data", control="shuffled"), bus, blobs):
        await until(lambda: checkpoints_at(bus, {4}))
    details = committed_at(blobs, 4).manifest.details
    assert details["control"] == "shuffled"
    assert details["samples"]["shuffled"] == 12 * len(details["shards"])


async def test_a_run_refuses_to_go_on_with_another_order(bus: MemoryBus, blobs: MemoryBlobs, tmp_path: Path) -> None:
    await publish_shards(bus, blobs, range(2))
    async with trainer(config_for(tmp_path / "data"), bus, blobs):
        await until(lambda: checkpoints_at(bus, {4}))
    runtime = Runtime.in_memory(name="trainer", config=config_for(tmp_path / "data", seed=7), bus=bus, blobs=blobs)
    with pytest.raises(ConfigError, match=r"trainer\.seed is 7.*name a new run"):
        async with running(runtime, parts(runtime)):
            await runtime.stop.wait()


async def test_a_directory_may_be_the_student(bus: MemoryBus, tmp_path: Path) -> None:
    blobs = MemoryBlobs()
    register_base(blobs, "elsewhere", tmp_path / "student")
    await bus.publish(commit_shard(blobs, DOMAIN, 0, samples=[sample(number) for number in range(40)]))
    async with trainer(config_for(tmp_path / "data", student=str(tmp_path / "student")), bus, blobs):
        await until(lambda: checkpoints_at(bus, {4}))
