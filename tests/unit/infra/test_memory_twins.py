"""The in-memory bus and store keep the contract that the real ones keep."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from jupiter.blobs import Blobs
from jupiter.blobs.memory import MemoryBlobs
from jupiter.bus import Bus
from jupiter.bus.memory import MemoryBus
from tests.integration.infra import blobs_contract, bus_contract


@pytest.mark.parametrize("promise", bus_contract.CONTRACT, ids=lambda promise: promise.__name__)
async def test_memory_bus(promise: Callable[[Bus, str], Awaitable[None]]) -> None:
    await promise(MemoryBus(ack_wait_s=2.0), "domain_a")


@pytest.mark.parametrize("promise", blobs_contract.CONTRACT, ids=lambda promise: promise.__name__)
def test_memory_blobs(promise: Callable[[Blobs, str, Path], None], tmp_path: Path) -> None:
    promise(MemoryBlobs(), "prefix", tmp_path)
