"""A server that is away when a checkpoint is due: the trainer waits for it, and no step is lost."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from jupiter.blobs.memory import MemoryBlobs
from jupiter.bus.memory import MemoryBus
from jupiter.config import ClusterConfig
from jupiter.errors import Unavailable
from jupiter.trainer.checkpoints import TENSORS_FILE
from tests.unit.trainer.material import DOMAIN, config_for, register_base
from tests.unit.trainer.test_training import checkpoints_at, committed_at, publish_shards, says, trainer, until


class NoCheckpoints(MemoryBlobs):
    """A store that cannot be reached for a checkpoint while `away`."""

    away = True

    def put_file(self, key: str, path: Path) -> str:
        if self.away and key.startswith("checkpoints/"):
            raise Unavailable("the test cut the store off")
        return super().put_file(key, path)


@pytest.fixture
def blobs(tmp_path: Path) -> NoCheckpoints:
    blobs = NoCheckpoints()
    register_base(blobs, DOMAIN, tmp_path / "base")
    return blobs


async def waits(caplog: pytest.LogCaptureFixture) -> None:
    async def said() -> bool:
        return "waiting to save a checkpoint" in caplog.text

    await until(said)


async def test_a_checkpoint_waits_for_the_store(
    bus: MemoryBus, blobs: NoCheckpoints, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await publish_shards(bus, blobs, range(4))
    async with trainer(config_for(tmp_path / "data"), bus, blobs) as runtime:
        await waits(caplog)
        assert (await says(runtime, "saving")).done == 4
        blobs.away = False
        events = await until(lambda: checkpoints_at(bus, {4, 8}))
    assert [event.step for event in events][:2] == [4, 8]


async def test_a_checkpoint_waits_for_the_bus(
    bus: MemoryBus, blobs: NoCheckpoints, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blobs.away = False
    await publish_shards(bus, blobs, range(4))
    bus.available = False
    async with trainer(config_for(tmp_path / "data"), bus, blobs):
        await waits(caplog)
        assert committed_at(blobs, 4).manifest.details["step"] == 4
        bus.available = True
        events = await until(lambda: checkpoints_at(bus, {4, 8}))
    assert [event.step for event in events][:2] == [4, 8], "each is published once"


async def test_stopped_while_it_waits_it_saves_the_same_checkpoint_later(
    bus: MemoryBus, blobs: NoCheckpoints, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is due when the only shard's round is done: saving it must not wait for another shard."""
    await publish_shards(bus, blobs, range(1))
    async with trainer(config_for(tmp_path / "count", run="count", eval_every_steps=1000), bus, blobs) as runtime:
        steps = int((await says(runtime, "waiting", "shard after 1")).figures["step"])

    def config(run: str) -> ClusterConfig:
        return config_for(tmp_path / run, run=run, eval_every_steps=steps)

    async with trainer(config("stopped"), bus, blobs):
        await waits(caplog)
    blobs.away = False
    caplog.set_level(logging.INFO)
    for run in ("stopped", "whole"):
        async with trainer(config(run), bus, blobs) as runtime:
            await says(runtime, "waiting", "shard after 1")
            await until(lambda: checkpoints_at(bus, {steps}))
    assert f"run stopped goes on at step {steps}" in caplog.text, "no step was taken twice"
    stopped, whole = (committed_at(blobs, steps, run).manifest for run in ("stopped", "whole"))
    assert stopped.file(TENSORS_FILE).sha256 == whole.file(TENSORS_FILE).sha256
    assert stopped.details["loss"] == whole.details["loss"]
    assert stopped.details["shards"] == whole.details["shards"]
