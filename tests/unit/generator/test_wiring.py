"""What a generator refuses before it consumes anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from jupiter.blobs.memory import MemoryBlobs
from jupiter.bus.memory import MemoryBus
from jupiter.config import ClusterConfig
from jupiter.errors import ConfigError
from jupiter.generator.wiring import setup
from jupiter.service import Runtime


async def test_a_task_that_nobody_can_do_stops_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    domains = tmp_path / "config" / "domains"
    domains.mkdir(parents=True)
    (domains / "birds.yaml").write_text("description: Birds.\ntasks: [{task: rewrite}, {task: sing}]\n")
    config = ClusterConfig(domain="birds", data_dir=tmp_path)
    runtime = Runtime.in_memory(name="generator", config=config, bus=MemoryBus(), blobs=MemoryBlobs(), instance="one")
    with pytest.raises(ConfigError, match=r"birds.yaml: tasks names sing; there are explain, .*rewrite"):
        await setup(runtime)
    (domains / "birds.yaml").write_text("description: Birds.\ntasks: [{task: rewrite}]\n")
    assert (await setup(runtime)).subscriptions
    await runtime.close()
