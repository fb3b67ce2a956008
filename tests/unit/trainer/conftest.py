"""The twins of bus and store that the trainer's tests share; version 1 is registered in the store."""

from __future__ import annotations

from pathlib import Path

import pytest

from jupiter.blobs.memory import MemoryBlobs
from jupiter.bus.memory import MemoryBus
from tests.unit.trainer.material import DOMAIN, register_base


@pytest.fixture
def bus() -> MemoryBus:
    return MemoryBus()


@pytest.fixture
def blobs(tmp_path: Path) -> MemoryBlobs:
    blobs = MemoryBlobs()
    register_base(blobs, DOMAIN, tmp_path / "base")
    return blobs
