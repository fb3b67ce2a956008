"""The bus on NATS and the store on S3 keep the contract that their in-memory twins keep."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from jupiter.blobs import Blobs
from jupiter.bus import Bus
from tests.integration.infra import blobs_contract, bus_contract

pytestmark = pytest.mark.connected


@pytest.mark.parametrize("promise", bus_contract.CONTRACT, ids=lambda promise: promise.__name__)
async def test_jetstream_bus(promise: Callable[[Bus, str], Awaitable[None]], bus: Bus, domain: str) -> None:
    await promise(bus, domain)


@pytest.mark.parametrize("promise", blobs_contract.CONTRACT, ids=lambda promise: promise.__name__)
def test_s3_blobs(promise: Callable[[Blobs, str, Path], None], blobs: Blobs, tmp_path: Path) -> None:
    promise(blobs, "prefix", tmp_path)
