"""Real servers for tests: started on free loopback ports, killable, always stopped.

Owns: one server process and its readiness. Does not know: the tests.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

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
        asyncio.run(self._until_ready())

    async def _until_ready(self) -> None:
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
