"""`torchrun --nnodes 1:2`: a second node joins a run, and leaves it again; no checkpoint is lost or published twice."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jupiter.blobs.s3 import S3Blobs
from jupiter.bus.jetstream import JetStreamBus
from jupiter.config import ClusterConfig
from jupiter.config.loading import settings_as_environment
from jupiter.local.endpoints import choose_ports
from tests.distributed.conftest import EVAL_EVERY_STEPS
from tests.distributed.launch import environment
from tests.distributed.test_killed_ranks import STOP_S_MAX, log_of, register_slow_base, taken_up, until
from tests.integration.test_trainer_killed import saved_steps
from tests.unit.trainer.material import commit_shard

pytestmark = [pytest.mark.connected, pytest.mark.slow, pytest.mark.timeout(1800)]

LATE_COMERS = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
"""Without it, torch 2.13 tells a node that comes later no address of rank 0: all of them give up after a minute."""


@contextmanager
def node(config: ClusterConfig, *, address: str, meets_at: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a node of one process, on a disk of its own, while the block runs."""
    config.data_dir.mkdir(exist_ok=True)
    with log_of(config).open("wb") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "torch.distributed.run"),
                *("--nnodes", "1:2", "--nproc-per-node", "1", "--max-restarts", "3", "--monitor-interval", "0.1"),
                *("--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{meets_at}", "--rdzv-id", "elastic"),
                # How long torchrun waits for one more node once there are enough; 30 s unless it is told.
                *("--rdzv-conf", "last_call_timeout=2", "--local-addr", address),
                *("-m", "jupiter.trainer"),
            ],
            cwd=config.data_dir,
            env=environment(**settings_as_environment(config), **LATE_COMERS),
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_S_MAX)


def worlds(*nodes: ClusterConfig) -> list[int]:
    """Return by how many processes the run was taken up, each time, in order: a line begins with its time."""
    lines = sorted(line for each in nodes for line in log_of(each).read_text().splitlines() if "processes: " in line)
    return [int(found[1]) for line in lines if (found := re.search(r"processes: (\d+)", line))]


@pytest.mark.parametrize(
    ("stays", "comes"),
    [("127.0.0.1", "127.0.0.2"), ("127.0.0.2", "127.0.0.1")],
    ids=["which follows", "which leads while it is there"],
)
async def test_a_node_joins_and_leaves(
    stays: str, comes: str, config: ClusterConfig, domain: str, bus: JetStreamBus, blobs: S3Blobs, tmp_path: Path
) -> None:
    """torchrun gives rank 0 to the first address."""
    register_slow_base(blobs, domain, tmp_path / "base")
    first, second = (config.model_copy(update={"data_dir": tmp_path / name}) for name in ("first", "second"))
    (port,) = choose_ports(("rendezvous",), remembered={}, wanted={}).values()

    async def trained_by(*expected: int) -> None:
        async def as_expected() -> bool:
            return worlds(first, second)[: len(expected)] == list(expected)

        await until(as_expected)

    async def saved(step: int) -> None:
        async def is_saved() -> bool:
            return step in await saved_steps(bus, domain, config.trainer.run)

        await until(is_saved)

    second.data_dir.mkdir()
    log_of(second).touch()
    with node(first, address=stays, meets_at=port) as agent:
        await bus.publish(commit_shard(blobs, domain, 0))
        await saved(EVAL_EVERY_STEPS)
        with node(second, address=comes, meets_at=port) as guest:
            await trained_by(1, 2)
            await bus.publish(commit_shard(blobs, domain, 1))
            await saved(2 * EVAL_EVERY_STEPS)
        assert guest.returncode is not None
        await bus.publish(commit_shard(blobs, domain, 2))
        await trained_by(1, 2, 1)
        await saved(3 * EVAL_EVERY_STEPS)
        assert agent.poll() is None, "it goes on alone"
    assert worlds(first, second) == [1, 2, 1]
    assert bool(taken_up(second)) == (comes < stays)
    steps = await saved_steps(bus, domain, config.trainer.run)
    assert steps == sorted(set(steps)), "no checkpoint is published twice, none out of order"
    assert steps[:3] == [4, 8, 12], "none is lost"
