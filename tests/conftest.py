"""Fixtures that start real servers once per test process, and give every test a domain and a bucket of its own."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from jupiter.blobs.s3 import S3Blobs
from jupiter.bus.jetstream import JetStreamBus
from tests.servers import NatsServer, RedisServer, S3Server

# A property test's time depends on who else computes here; pytest's own time-out bounds it.
settings.register_profile("jupiter", deadline=None)
settings.load_profile("jupiter")

ACK_WAIT_S = 2.0
"""Of the `bus` fixture: short, so that tests of redelivery are fast."""


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A nats-server with JetStream for this test process; `nats_server.url` is where it listens."""
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A SeaweedFS for this test process; `s3_server.endpoint` is where its S3 API listens."""
    server = S3Server(tmp_path_factory.mktemp("s3"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis for one test, which may kill it or empty it."""
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def domain() -> str:
    """A domain that no other test uses."""
    return f"test_{secrets.token_hex(5)}"


@pytest.fixture
async def bus(nats_server: NatsServer) -> AsyncIterator[JetStreamBus]:
    """A connection to the real bus. Streams are shared by all tests of this process: use `domain`."""
    bus = JetStreamBus(nats_server.section(ack_wait_s=ACK_WAIT_S), source="jupiter/test")
    await bus.start()
    yield bus
    await bus.close()


@pytest.fixture
def blobs(s3_server: S3Server) -> S3Blobs:
    """The real object store with an empty bucket of its own."""
    blobs = S3Blobs(s3_server.section(bucket=f"test-{secrets.token_hex(5)}"))
    blobs.start()
    return blobs
