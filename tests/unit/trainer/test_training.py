"""The trainer in one process on the in-memory twins: shards in, checkpoints out, restarts between."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import pytest

from jupiter import keys, manifests
from jupiter.blobs.memory import MemoryBlobs
from jupiter.bus.codec import encode
from jupiter.bus.memory import MemoryBus
from jupiter.config import ClusterConfig
from jupiter.deliveries import Pauses
from jupiter.errors import ConfigError
from jupiter.events import CheckpointSaved, ServiceStatus
from jupiter.manifests import Committed
from jupiter.modeling import attest, load_model, read_golden
from jupiter.service import Runtime, running
from jupiter.trainer.handlers import parts
from tests.unit.trainer.material import DOMAIN, commit_shard, config_for, register_base, sample

WAIT_S_MAX = 60.0
_instances = itertools.count()


@asynccontextmanager
async def trainer(config: ClusterConfig, bus: MemoryBus, blobs: MemoryBlobs) -> AsyncIterator[Runtime]:
    """Run a trainer while the block runs, under an instance name of its own."""
    instance = f"test-{next(_instances)}"
    runtime = Runtime.in_memory(
        name="trainer", config=config, bus=bus, blobs=blobs, instance=instance, pauses=Pauses(status_s=0.05)
    )
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


async def status(runtime: Runtime) -> ServiceStatus | None:
    """Return what this trainer said last; statuses are rate-limited, so it may be a moment old."""
    subject = f"status.{DOMAIN}.trainer.{runtime.instance}"
    entries = [entry.event async for entry in runtime.bus.read(subject, follow=False)]
    return next((event for event in entries if isinstance(event, ServiceStatus)), None)


async def says(runtime: Runtime, stage: str, detail: str = "") -> ServiceStatus:
    """Wait until the trainer says that it is in `stage`, and return the status."""

    async def said() -> ServiceStatus | None:
        found = await status(runtime)
        return found if found is not None and found.stage == stage and detail in found.detail else None

    found: ServiceStatus = await until(said)
    return found


async def checkpoints_at(bus: MemoryBus, steps: set[int]) -> list[CheckpointSaved]:
    found = await saved(bus)
    return found if steps <= {event.step for event in found} else []


def committed_at(blobs: MemoryBlobs, step: int, run: str = "run1") -> Committed:
    return manifests.read(blobs, keys.manifest_key(keys.checkpoint_prefix(DOMAIN, run, step)))


async def publish_shards(bus: MemoryBus, blobs: MemoryBlobs, numbers: range) -> None:
    for number in numbers:
        await bus.publish(commit_shard(blobs, DOMAIN, number))


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
async def test_shards_become_a_checkpoint_that_a_generator_can_attest(
    dtype: Literal["bfloat16", "float32"], bus: MemoryBus, blobs: MemoryBlobs, tmp_path: Path
) -> None:
    config = config_for(tmp_path / "data")
    config = config.model_copy(update={"generator": config.generator.model_copy(update={"dtype": dtype})})
    await publish_shards(bus, blobs, range(3))
    async with trainer(config, bus, blobs):
        events = await until(lambda: checkpoints_at(bus, {4, 8}))
    assert [event.step for event in events] == sorted({event.step for event in events})
    committed = committed_at(blobs, 4)
    assert committed.sha256 == events[0].manifest_sha256
    manifests.fetch(blobs, committed.manifest, tmp_path / "fetched")
    model, tokenizer = load_model(tmp_path / "fetched" / "model", dtype=dtype)
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
    async with trainer(config_for(tmp_path / "data"), bus, blobs) as runtime:
        await says(runtime, "waiting", "generator version 1")
        register_base(blobs, DOMAIN, tmp_path / "base")
        await says(runtime, "waiting", "shard after 0")
        await publish_shards(bus, blobs, range(2))
        found = await says(runtime, "waiting", "shard after 2")
    assert found.figures["shard_sequence"] == 2
    assert found.figures["step"] == found.done
    assert found.total is not None
    assert found.done is not None
    assert found.total > found.done


async def test_a_stopped_run_goes_on_bit_equal(bus: MemoryBus, blobs: MemoryBlobs, tmp_path: Path) -> None:
    """Two runs over the same shards, one of them stopped after each shard, end in the same weights."""
    for number in range(4):
        await publish_shards(bus, blobs, range(number, number + 1))
        async with trainer(config_for(tmp_path / "parts", run="parts"), bus, blobs) as runtime:
            await says(runtime, "waiting", f"shard after {number + 1}")
    async with trainer(config_for(tmp_path / "whole", run="whole"), bus, blobs) as runtime:
        await says(runtime, "waiting", "shard after 4")

    def weights(run: str) -> list[str]:
        files = committed_at(blobs, 12, run).manifest.files
        return [ref.sha256 for ref in files if ref.name.endswith(".safetensors")]

    assert weights("parts") == weights("whole")


async def test_an_unpublished_checkpoint_is_published_once(bus: MemoryBus, blobs: MemoryBlobs, tmp_path: Path) -> None:
    await publish_shards(bus, blobs, range(2))
    async with trainer(config_for(tmp_path / "data"), bus, blobs):
        await until(lambda: checkpoints_at(bus, {4}))
    newest = (await saved(bus))[-1]
    other = MemoryBus()  # a bus that never saw the event: the trainer died between manifest and event
    async with trainer(config_for(tmp_path / "data"), other, blobs):
        await until(lambda: saved(other))
    async with trainer(config_for(tmp_path / "data"), other, blobs) as runtime:
        await says(runtime, "waiting", "shard after")
    steps = [event.step for event in await saved(other)]
    assert steps[0] == newest.step
    assert len(steps) == len(set(steps))


async def test_a_damaged_checkpoint_is_passed_over(bus: MemoryBus, blobs: MemoryBlobs, tmp_path: Path) -> None:
    await publish_shards(bus, blobs, range(4))
    async with trainer(config_for(tmp_path / "data"), bus, blobs):
        await until(lambda: checkpoints_at(bus, {4, 8}))
    newest = max(event.step for event in await saved(bus))
    blobs.put(committed_at(blobs, newest).manifest.file("training_state.safetensors").key, b"damaged")
    async with trainer(config_for(tmp_path / "elsewhere"), bus, blobs) as runtime:  # a fresh disk: no snapshot helps
        await says(runtime, "waiting", "shard after 4")
    assert len(await saved(bus)) == len({event.step for event in await saved(bus)})
    manifests.fetch(blobs, committed_at(blobs, newest).manifest, tmp_path / "fetched")  # the same bytes again


async def test_divergence_stops_at_the_last_good_checkpoint(bus: MemoryBus, blobs: MemoryBlobs, tmp_path: Path) -> None:
    await publish_shards(bus, blobs, range(8))

    config = config_for(tmp_path / "data", learning_rate=1e9, warmup_steps=0, gradient_clip=1e9, eval_every_steps=1000)
    async with trainer(config, bus, blobs) as runtime:
        found = await says(runtime, "diverged")
        assert runtime.telemetry.registry.get_sample_value("jupiter_trainer_diverged") == 1
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


async def test_a_shard_that_the_log_holds_twice_is_trained_on_once(
    bus: MemoryBus, blobs: MemoryBlobs, tmp_path: Path
) -> None:
    """The first comes again while it is still in the window, and after it; a restart comes in between."""
    other = MemoryBus()
    for number in (0, 1, 0, 2, 3, 0, 4):
        event = encode(commit_shard(blobs, DOMAIN, number), source="test")
        await bus.publish_raw(event.subject, event.data, headers=event.headers)  # no id: it is stored each time
    await publish_shards(other, blobs, range(5))
    settings: dict[str, Any] = {"passes_per_shard": 2, "eval_every_steps": 2}
    for _ in range(2):
        async with trainer(config_for(tmp_path / "twice", run="twice", **settings), bus, blobs) as runtime:
            await says(runtime, "waiting", "shard after 7")
    async with trainer(config_for(tmp_path / "once", run="once", **settings), other, blobs) as runtime:
        await says(runtime, "waiting", "shard after 5")
    newest = max(event.step for event in await saved(other))
    twice, once = (committed_at(blobs, newest, run).manifest for run in ("twice", "once"))
    assert twice.details["shards"] == once.details["shards"]
    assert twice.file("training_state.safetensors").sha256 == once.file("training_state.safetensors").sha256
    assert max(event.step for event in await saved(bus)) == newest


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
