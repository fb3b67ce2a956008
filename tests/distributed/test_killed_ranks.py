"""`torchrun -m jupiter.trainer` on real servers: a rank is lost, and all go on from the last whole checkpoint."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jupiter import keys, manifests
from jupiter.blobs.s3 import S3Blobs
from jupiter.bus.jetstream import JetStreamBus
from jupiter.config import ClusterConfig
from jupiter.config.loading import settings_as_environment
from jupiter.events import ServiceStatus
from jupiter.modeling import attest, load_model, read_golden
from tests.distributed.conftest import EVAL_EVERY_STEPS
from tests.distributed.launch import environment, python_or_torchrun
from tests.integration.test_trainer_killed import named, saved_steps, steps_taken, weights
from tests.tiny_model import make_tiny_model
from tests.unit.trainer.material import commit_shard

pytestmark = [pytest.mark.connected, pytest.mark.slow, pytest.mark.timeout(2400)]

LAST_STEP = 12
STOP_S_MAX = 60.0
WAIT_S_MAX = 600.0
"""On a machine that is busy with other things as well, two processes import torch for minutes."""


def register_slow_base(blobs: S3Blobs, domain: str, directory: Path) -> None:
    """Register a model of which a step takes long enough to be interrupted."""
    make_tiny_model(directory, hidden=192, layers=6)
    prefix = keys.generator_prefix(domain, 1)
    files = tuple(
        manifests.upload_file(blobs, prefix=prefix, name=path.name, path=path) for path in sorted(directory.iterdir())
    )
    manifests.commit(
        blobs, prefix=prefix, kind="generator", domain=domain, work_id="1" * 64, files=files, details={"version": 1}
    )


@contextmanager
def trainer(config: ClusterConfig, *, processes: int, **more: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the trainer in so many processes while the block runs, then stop it as an operator does."""
    config.data_dir.mkdir(exist_ok=True)
    with log_of(config).open("ab") as log:
        process = subprocess.Popen(
            [*python_or_torchrun(processes, restarts_max=3), "-m", "jupiter.trainer"],
            cwd=config.data_dir,
            env=environment(**settings_as_environment(config), **more),
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_S_MAX)


async def until(what: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(WAIT_S_MAX):
        while not await what():  # noqa: ASYNC110 - what is waited for is in another process
            await asyncio.sleep(0.1)


async def finish(bus: JetStreamBus, domain: str, run: str) -> None:
    """Wait until the run's last checkpoint is published."""

    async def finished() -> bool:
        return LAST_STEP in await saved_steps(bus, domain, run)

    await until(finished)


def log_of(config: ClusterConfig) -> Path:
    return config.data_dir / "trainer.log"


def taken_up(config: ClusterConfig) -> list[tuple[int, int]]:
    """Return at which step the run was taken up, each time, and by how many processes."""
    found = re.findall(r"run \S+ (?:begins|goes on) at step (\d+), processes: (\d+)", log_of(config).read_text())
    return [(int(step), int(processes)) for step, processes in found]


def rank_process(agent: subprocess.Popen[bytes], rank: int) -> int:
    """Return the process id of a rank that torchrun has started."""
    for child in Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split():
        variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        if f"RANK={rank}".encode() in variables:
            return int(child)
    raise AssertionError(f"torchrun runs no rank {rank}")


@pytest.mark.parametrize("lost", [1, 0], ids=["a follower", "the leader"])
async def test_a_run_that_loses_a_rank_ends_as_one_that_does_not(
    lost: int, config: ClusterConfig, domain: str, bus: JetStreamBus, blobs: S3Blobs, tmp_path: Path
) -> None:
    """The first checkpoint's leader dies between manifest and event; later a rank is killed in the middle of a step."""
    register_slow_base(blobs, domain, tmp_path / "base")
    for number in range(3):
        await bus.publish(commit_shard(blobs, domain, number))
    killed, whole = named(config, "killed"), named(config, "whole")
    marker = tmp_path / "died-after-manifest"

    async def is_between_checkpoints() -> bool:
        return await steps_taken(bus, domain) > EVAL_EVERY_STEPS

    crash = {"JUPITER_CRASH_AFTER": "manifest", "JUPITER_CRASH_MARKER": str(marker)}
    with trainer(killed, processes=2, **crash) as agent:
        await until(is_between_checkpoints)
        assert marker.exists()
        os.kill(rank_process(agent, lost), signal.SIGKILL)
        await finish(bus, domain, "killed")
        assert agent.poll() is None, "torchrun itself goes on"
    with trainer(whole, processes=2):
        await finish(bus, domain, "whole")
    begun, after_crash, after_kill = taken_up(killed)
    assert (begun, after_crash) == ((0, 2), (EVAL_EVERY_STEPS, 2))
    assert after_kill[0] in (EVAL_EVERY_STEPS, 2 * EVAL_EVERY_STEPS), "killed in mid-run, it goes on from a checkpoint"
    assert weights(blobs, domain, "killed") == weights(blobs, domain, "whole")
    for run in ("killed", "whole"):
        steps = await saved_steps(bus, domain, run)
        assert steps == sorted(set(steps)), "no checkpoint is published twice, none out of order"
        assert steps[:3] == [4, 8, 12], "none is lost"
    await assert_published_model_is_plain(blobs, domain, tmp_path / "fetched")


async def assert_published_model_is_plain(blobs: S3Blobs, domain: str, directory: Path) -> None:
    """Whoever evaluates or serves it needs to know nothing of ranks."""
    committed = manifests.read(blobs, keys.manifest_key(keys.checkpoint_prefix(domain, "killed", LAST_STEP)))
    manifests.fetch(blobs, committed.manifest, directory)
    model, tokenizer = load_model(directory / "model")
    attest(model, tokenizer, directory / "model", read_golden(directory / "golden.json"), 1e-4)
    assert type(model).__name__ == "LlamaForCausalLM"


async def test_two_processes_stop_when_told_and_one_goes_on(
    config: ClusterConfig, domain: str, bus: JetStreamBus, blobs: S3Blobs, tmp_path: Path
) -> None:
    """SIGTERM reaches torchrun and with it every rank; what they kept on the disk loses no step."""
    register_slow_base(blobs, domain, tmp_path / "base")
    await bus.publish(commit_shard(blobs, domain, 0))
    run = named(config, "run1")

    async def waits_for_another_shard() -> bool:
        entries = [entry.event async for entry in bus.read(f"status.{domain}.>", follow=False)]
        return any(isinstance(event, ServiceStatus) and event.stage == "waiting" and event.done for event in entries)

    with trainer(run, processes=2) as agent:
        await until(waits_for_another_shard)
    taken = await steps_taken(bus, domain)
    assert agent.returncode is not None
    for number in (1, 2):
        await bus.publish(commit_shard(blobs, domain, number))
    with trainer(run, processes=1):
        await finish(bus, domain, "run1")
    assert taken_up(run) == [(0, 2), (taken, 1)]

    async def was_taken_up_again() -> bool:
        return len(taken_up(run)) == 3

    with trainer(run, processes=2):
        await until(was_taken_up_again)
    assert taken_up(run)[2][1] == 2
