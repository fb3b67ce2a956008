"""`torchrun -m jupiter.trainer` as two nodes start it: each answers its own probe, whichever of them has rank 0."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from jupiter.blobs.s3 import S3Blobs
from jupiter.bus.jetstream import JetStreamBus
from jupiter.config import ClusterConfig
from jupiter.config.loading import settings_as_environment
from jupiter.config.sections import TelemetrySection
from jupiter.local.endpoints import choose_ports
from tests.distributed.launch import environment
from tests.distributed.test_killed_ranks import STOP_S_MAX, register_slow_base, until
from tests.integration.test_trainer_killed import saved_steps
from tests.servers import NatsServer, S3Server
from tests.unit.trainer.material import commit_shard, config_for

pytestmark = [pytest.mark.connected, pytest.mark.slow, pytest.mark.timeout(2400)]

EVAL_EVERY_STEPS = 4
NODES = ("first", "second")


@contextmanager
def node(config: ClusterConfig, *, meets_at: int) -> Iterator[None]:
    """Run a trainer node of one process while the block runs, started by the variables that the compose files set."""
    config.data_dir.mkdir(parents=True)
    variables = {
        "PET_NPROC_PER_NODE": "1",
        "PET_NNODES": str(len(NODES)),
        "PET_RDZV_BACKEND": "c10d",
        "PET_RDZV_ENDPOINT": f"127.0.0.1:{meets_at}",
        "PET_RDZV_ID": "jupiter-trainer",
        "PET_MAX_RESTARTS": "0",
    }
    with (config.data_dir / "trainer.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", "-m", "jupiter.trainer"],
            cwd=config.data_dir,
            env=environment(**settings_as_environment(config), **variables),
            stdout=log,
            stderr=log,
        )
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_S_MAX)


def readiness(port: int) -> int | None:
    """Return the status of a node's /readyz; None where nothing listens."""
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=15, trust_env=False).status_code
    except httpx.TransportError:
        return None


async def test_both_nodes_are_ready_and_train_together(
    domain: str, bus: JetStreamBus, nats_server: NatsServer, s3_server: S3Server, blobs: S3Blobs, tmp_path: Path
) -> None:
    register_slow_base(blobs, domain, tmp_path / "base")
    await bus.publish(commit_shard(blobs, domain, 0))
    ports = choose_ports((*NODES, "rendezvous"), remembered={}, wanted={})
    servers = {"nats": nats_server.section(), "s3": s3_server.section(bucket=blobs.bucket)}
    config = config_for(tmp_path, domain=domain, eval_every_steps=EVAL_EVERY_STEPS).model_copy(update=servers)

    def of(name: str) -> ClusterConfig:
        telemetry = TelemetrySection(log_format="text", port=ports[name])
        return config.model_copy(update={"telemetry": telemetry, "data_dir": tmp_path / name})

    async def both_ready() -> bool:
        return [await asyncio.to_thread(readiness, ports[name]) for name in NODES] == [200, 200]

    async def saved() -> bool:
        return EVAL_EVERY_STEPS in await saved_steps(bus, domain, config.trainer.run)

    with ExitStack() as running:
        for name in NODES:
            running.enter_context(node(of(name), meets_at=ports["rendezvous"]))
        await until(both_ready)
        await until(saved)
        assert await both_ready(), "both of one run"
    logs = [(tmp_path / name / "trainer.log").read_text() for name in NODES]
    assert sum("rank 1 of 2 is up" in text for text in logs) == 1
