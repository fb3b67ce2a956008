"""Where a trainer that starts goes on, when what it finds is damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from jupiter import keys
from jupiter.blobs.memory import MemoryBlobs
from jupiter.bus.memory import MemoryBus
from jupiter.trainer.checkpoints import STATE_FILE, TENSORS_FILE
from jupiter.trainer.resuming import SUMS_FILE
from tests.unit.trainer.material import DOMAIN, config_for
from tests.unit.trainer.test_training import committed_at, publish_shards, saved, says, trainer

EVAL_EVERY_STEPS = 4


def emptied(snapshot: Path) -> None:
    """As a file system leaves a file of which it wrote the name and not the content."""
    (snapshot / STATE_FILE).write_bytes(b"")


def zeroed(snapshot: Path) -> None:
    """As it leaves one of which some pages were not written: for safetensors those are weights."""
    content = (snapshot / TENSORS_FILE).read_bytes()
    (snapshot / TENSORS_FILE).write_bytes(content[:-4096] + bytes(4096))


def without_sums(snapshot: Path) -> None:
    (snapshot / SUMS_FILE).unlink(missing_ok=True)


@pytest.mark.parametrize("damage", [emptied, zeroed, without_sums])
async def test_a_damaged_snapshot_is_passed_over(
    bus: MemoryBus, blobs: MemoryBlobs, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    config = config_for(tmp_path / "cut", run="cut", eval_every_steps=EVAL_EVERY_STEPS)
    await publish_shards(bus, blobs, range(2))
    async with trainer(config, bus, blobs) as runtime:
        step = (await says(runtime, "waiting", "shard after 2")).figures["step"]
    assert step % EVAL_EVERY_STEPS, "there is something that only the snapshot holds"
    damage(tmp_path / "cut" / "trainer" / "cut" / "snapshot")
    await publish_shards(bus, blobs, range(2, 4))
    for run in ("cut", "whole"):
        config = config_for(tmp_path / run, run=run, eval_every_steps=EVAL_EVERY_STEPS)
        async with trainer(config, bus, blobs) as runtime:
            await says(runtime, "waiting", "shard after 4")
    newest = max(event.step for event in await saved(bus))
    assert newest > step
    cut, whole = (committed_at(blobs, newest, run).manifest for run in ("cut", "whole"))
    assert cut.file(TENSORS_FILE).sha256 == whole.file(TENSORS_FILE).sha256


async def test_a_damaged_manifest_is_passed_over(
    bus: MemoryBus, blobs: MemoryBlobs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The checkpoint before it is taken up, and what cannot be saved again does not stop the run there."""
    await publish_shards(bus, blobs, range(3))
    async with trainer(config_for(tmp_path / "data"), bus, blobs) as runtime:
        await says(runtime, "waiting", "shard after 3")
    damaged = max(event.step for event in await saved(bus))
    blobs.put(keys.manifest_key(keys.checkpoint_prefix(DOMAIN, "run1", damaged)), b"damaged")
    await publish_shards(bus, blobs, range(3, 5))
    async with trainer(config_for(tmp_path / "elsewhere"), bus, blobs) as runtime:  # a fresh disk: no snapshot helps
        await says(runtime, "waiting", "shard after 5")
    steps = [event.step for event in await saved(bus)]
    assert f"checkpoint at step {damaged} is left out" in caplog.text
    assert steps == list(range(EVAL_EVERY_STEPS, steps[-1] + 1, EVAL_EVERY_STEPS))
    assert steps[-1] > damaged
