"""The trainer as a process on real servers, killed at every step of the commit rule and in between."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from jupiter import keys, manifests
from jupiter.blobs.s3 import S3Blobs
from jupiter.bus.jetstream import JetStreamBus
from jupiter.config import ClusterConfig
from jupiter.config.loading import settings_as_environment
from jupiter.config.sections import TelemetrySection
from jupiter.events import CheckpointSaved, RewindRequested, ServiceStatus, VersionQuarantined
from jupiter.withdrawals import rewound_run
from tests.servers import NatsServer, S3Server
from tests.unit.trainer.material import commit_shard, config_for, register_base

pytestmark = [pytest.mark.connected, pytest.mark.timeout(600)]

WAIT_S_MAX = 180.0
STOP_S_MAX = 30.0
EVAL_EVERY_STEPS = 4
LAST_STEP = 12
SECOND_SHARD_STEP = 20
"""The passes over the first shard take twelve steps or a little more."""


@pytest.fixture
def config(domain: str, nats_server: NatsServer, s3_server: S3Server, blobs: S3Blobs, tmp_path: Path) -> ClusterConfig:
    return config_for(tmp_path, domain=domain, eval_every_steps=EVAL_EVERY_STEPS).model_copy(
        update={
            "nats": nats_server.section(),
            "s3": s3_server.section(bucket=blobs.bucket),
            "telemetry": TelemetrySection(log_format="text"),
        }
    )


def named(config: ClusterConfig, run: str) -> ClusterConfig:
    """Return the configuration of another run, with a disk of its own."""
    trainer = config.trainer.model_copy(update={"run": run})
    return config.model_copy(update={"trainer": trainer, "data_dir": config.data_dir / run})


@contextmanager
def trainer(config: ClusterConfig, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run `python -m jupiter.trainer` while the block runs."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("JUPITER_")}
    config.data_dir.mkdir(exist_ok=True)
    with (config.data_dir / "trainer.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupiter.trainer"],
            cwd=config.data_dir,
            env={**clean, "OMP_NUM_THREADS": "1", **settings_as_environment(config), **environment},
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(STOP_S_MAX)


async def until(what: Callable[[], Awaitable[Any]]) -> Any:
    async with asyncio.timeout(WAIT_S_MAX):
        while not (found := await what()):  # noqa: ASYNC110 - what is waited for is in another process
            await asyncio.sleep(0.05)
    return found


async def saved_steps(bus: JetStreamBus, domain: str, run: str) -> list[int]:
    entries = [entry.event async for entry in bus.read(f"checkpoints.{domain}", follow=False)]
    return [event.step for event in entries if isinstance(event, CheckpointSaved) and event.run == run]


async def losses(bus: JetStreamBus, domain: str, run: str) -> dict[int, float]:
    """Return what the run's checkpoints up to the last one say of the steps since the one before."""
    entries = [entry.event async for entry in bus.read(f"checkpoints.{domain}", follow=False)]
    saved = [event for event in entries if isinstance(event, CheckpointSaved) and event.run == run]
    return {event.step: event.loss for event in saved if event.step <= LAST_STEP}


async def steps_taken(bus: JetStreamBus, domain: str) -> float:
    entries = [entry.event async for entry in bus.read(f"status.{domain}.>", follow=False)]
    return max((event.done or 0 for event in entries if isinstance(event, ServiceStatus)), default=0)


async def finish(bus: JetStreamBus, domain: str, run: str, *, step: int = LAST_STEP) -> None:
    """Wait until the run's last checkpoint is published."""

    async def finished() -> bool:
        return step in await saved_steps(bus, domain, run)

    await until(finished)


def weights(blobs: S3Blobs, domain: str, run: str, *, step: int = LAST_STEP) -> dict[str, str]:
    """Return the sha256 of model and training tensors of the run's last checkpoint."""
    committed = manifests.read(blobs, keys.manifest_key(keys.checkpoint_prefix(domain, run, step)))
    return {ref.name: ref.sha256 for ref in committed.manifest.files if ref.name.endswith(".safetensors")}


async def test_a_trainer_killed_everywhere_ends_in_the_weights_of_one_never_killed(
    config: ClusterConfig, domain: str, bus: JetStreamBus, blobs: S3Blobs, tmp_path: Path
) -> None:
    register_base(blobs, domain, tmp_path / "base")
    shards = [commit_shard(blobs, domain, number) for number in range(4)]
    for shard in shards[:2]:
        await bus.publish(shard)
    killed = named(config, "killed")
    for step in ("blobs", "manifest", "event"):
        marker = tmp_path / f"died-after-{step}"
        with trainer(killed, JUPITER_CRASH_AFTER=step, JUPITER_CRASH_MARKER=str(marker)) as process:
            assert await asyncio.to_thread(process.wait, WAIT_S_MAX) == -signal.SIGKILL
        assert marker.exists()

    async def is_between_checkpoints() -> bool:
        return await steps_taken(bus, domain) > 2 * EVAL_EVERY_STEPS

    with trainer(killed) as process:
        await until(is_between_checkpoints)
        process.kill()
    for shard in shards[2:]:
        await bus.publish(shard)
    for run in ("killed", "whole"):
        with trainer(named(config, run)):
            await finish(bus, domain, run)
    assert weights(blobs, domain, "killed") == weights(blobs, domain, "whole")
    assert await losses(bus, domain, "killed") == await losses(bus, domain, "whole")
    for run in ("killed", "whole"):
        steps = await saved_steps(bus, domain, run)
        assert steps == sorted(set(steps)), "no checkpoint is published twice, none out of order"
        assert steps[:3] == [4, 8, 12], "none is lost"


async def test_a_trainer_killed_while_it_is_sent_back_ends_where_one_ends_that_was_not(
    config: ClusterConfig, domain: str, bus: JetStreamBus, blobs: S3Blobs, tmp_path: Path
) -> None:
    """Killed after each step of the first checkpoint that the rewound run commits; the other is never killed."""
    register_base(blobs, domain, tmp_path / "base")
    for number, version in ((0, 1), (1, 2), (2, 2), (3, 2)):
        await bus.publish(commit_shard(blobs, domain, number, version=version))
    for run in ("killed", "whole"):
        with trainer(named(config, run)):
            await finish(bus, domain, run, step=SECOND_SHARD_STEP)
    await bus.publish(
        VersionQuarantined(domain=domain, ledger_sequence=1, version=2, request_sequence_max=3, reason="it was worse")
    )
    for number in (4, 5, 6):
        await bus.publish(commit_shard(blobs, domain, number))
    for number, run in enumerate(("killed", "whole"), start=1):
        origin = manifests.read(blobs, keys.manifest_key(keys.checkpoint_prefix(domain, run, EVAL_EVERY_STEPS)))
        await bus.publish(
            RewindRequested(
                domain=domain,
                ledger_sequence=number,
                run=run,
                checkpoint_id=origin.manifest.work_id,
                checkpoint_manifest_key=origin.key,
                checkpoint_manifest_sha256=origin.sha256,
                reason="it was worse",
            )
        )
    for step in ("blobs", "manifest", "event"):
        marker = tmp_path / f"died-after-{step}"
        crash = {"JUPITER_CRASH_AFTER": step, "JUPITER_CRASH_MARKER": str(marker)}
        with trainer(named(config, "killed"), **crash) as process:
            assert await asyncio.to_thread(process.wait, WAIT_S_MAX) == -signal.SIGKILL
    rewound = {run: rewound_run(run, number) for number, run in enumerate(("killed", "whole"), start=1)}
    for run, back in rewound.items():
        with trainer(named(config, run)):
            await finish(bus, domain, back, step=SECOND_SHARD_STEP)
    killed, whole = (weights(blobs, domain, rewound[run], step=SECOND_SHARD_STEP) for run in ("killed", "whole"))
    assert killed == whole
    assert whole != weights(blobs, domain, "whole", step=SECOND_SHARD_STEP), "version 2 is not in it"
    for back in rewound.values():
        steps = await saved_steps(bus, domain, back)
        assert steps == sorted(set(steps)), "no checkpoint is published twice, none out of order"
        assert steps[:2] == [8, 12], "it goes on from step 4"
