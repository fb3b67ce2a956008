"""What the distributed tests share: a model whose every parameter is trained, and the settings of a trainer service."""

from __future__ import annotations

from pathlib import Path

import pytest

from jupiter.blobs.s3 import S3Blobs
from jupiter.config import ClusterConfig
from jupiter.config.sections import TelemetrySection
from tests.servers import NatsServer, S3Server
from tests.tiny_model import make_tiny_model
from tests.unit.trainer.material import config_for

EVAL_EVERY_STEPS = 4


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def config(domain: str, nats_server: NatsServer, s3_server: S3Server, blobs: S3Blobs, tmp_path: Path) -> ClusterConfig:
    return config_for(tmp_path, domain=domain, eval_every_steps=EVAL_EVERY_STEPS).model_copy(
        update={
            "nats": nats_server.section(),
            "s3": s3_server.section(bucket=blobs.bucket),
            "telemetry": TelemetrySection(log_format="text"),
        }
    )
