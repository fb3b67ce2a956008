"""The twins of bus and store that the evaluator's tests share."""

from __future__ import annotations

import pytest

from jupiter.blobs.memory import MemoryBlobs
from jupiter.bus.memory import MemoryBus


@pytest.fixture
def bus() -> MemoryBus:
    return MemoryBus(ack_wait_s=30)


@pytest.fixture
def blobs() -> MemoryBlobs:
    return MemoryBlobs()
