"""One child process that is kept running.

Owns: starting, watching, restarting with backoff, draining and killing one process, and its log file.
Does not know: what the process does, nor in which order several are started (`cluster`).
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal

from jupiter.errors import Unavailable

__all__ = ["Notice", "ProcessSpec", "State", "SupervisedProcess"]

State = Literal["stopped", "starting", "ready", "not ready", "restarting", "stopping"]

RESTART_S_MIN = 0.5
RESTART_S_MAX = 30.0
# A process that ran so long is forgiven its earlier deaths.
HEALTHY_S = 60.0
# Dying so often without ever having been ready is a fault that restarting does not cure.
FIRST_DEATHS_MAX = 3
PROBE_S = 0.1
PROBE_WHEN_READY_S = 5.0
LOG_BYTES_MAX = 64 << 20
LOG_TAIL_LINES = 12


@dataclass(frozen=True, kw_only=True)
class ProcessSpec:
    """What to run, and how to tell that it is ready."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    """Added to this process's environment."""
    ready: Callable[[], Awaitable[str | None]]
    """Answers None when ready, else the reason why not."""
    drain_s: float = 30.0
    """How long after SIGTERM the process may take; then it is killed."""
    death_signal: signal.Signals = signal.SIGKILL
    """What the kernel sends it when the supervisor dies."""


@dataclass(frozen=True, kw_only=True)
class Notice:
    """Something that happened to a process and that a user should know."""

    name: str
    what: Literal["started", "ready", "died", "stopped", "killed"]
    text: str
    at: float = field(default_factory=time.time)


class SupervisedProcess:
    """Keeps one process running until it is told to stop."""

    def __init__(self, spec: ProcessSpec, *, log_path: Path, notify: Callable[[Notice], None]) -> None:
        self.spec = spec
        self.log_path = log_path
        self.state: State = "stopped"
        self.reason = ""
        """Why it is not ready."""
        self.restarts = 0
        self._notify = notify
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self._was_ready = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process and self._process.returncode is None else None

    def start(self) -> None:
        """Start it and keep it running, in the background."""
        self._stopping.clear()
        self._task = asyncio.create_task(self._keep_running(), name=f"supervise {self.spec.name}")

    async def until_ready(self, *, timeout_s: float) -> None:
        """Return once it was ready for the first time. Raises Unavailable with the end of its log when it never is."""
        if self._task is None:
            raise AssertionError(f"{self.spec.name} was never started")
        waiting = asyncio.create_task(self._was_ready.wait())
        try:
            await asyncio.wait({waiting, self._task}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if self._was_ready.is_set():
            return
        if self._task.done() and not self._task.cancelled():
            self._task.result()
        why = self.reason or "it does not answer"
        raise Unavailable(f"{self.spec.name} is not ready after {timeout_s:.0f} s: {why}\n{self.log_tail()}")

    async def stop(self) -> None:
        """SIGTERM, wait while it drains, SIGKILL if it does not end."""
        self._stopping.set()
        if self._task is None:
            return
        if self.pid is not None:
            self.state = "stopping"
            self._signal(signal.SIGTERM)
            await asyncio.wait({self._task}, timeout=self.spec.drain_s)
            if self.pid is not None:
                self._say("killed", f"{self.spec.name} did not end within {self.spec.drain_s:.0f} s: killed")
                self.kill()
        await asyncio.wait({self._task})
        if not self._task.cancelled():
            self._task.exception()  # It was reported when it happened.
        self._task = None
        self.state = "stopped"

    def kill(self) -> None:
        """SIGKILL, for good: it is not restarted."""
        self._stopping.set()
        self._signal(signal.SIGKILL)

    def log_tail(self) -> str:
        """Return the last lines of its log, indented, for a message."""
        if not self.log_path.exists():
            return ""
        with self.log_path.open("rb") as stream:
            stream.seek(max(0, self.log_path.stat().st_size - 8192))
            lines = stream.read().decode(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        return "\n".join([f"the end of {self.log_path}:", *(f"  {line[:400]}" for line in lines)])

    async def _keep_running(self) -> None:
        delay_s = RESTART_S_MIN
        while not self._stopping.is_set():
            began = time.monotonic()
            code = await self._run_once()
            if self._stopping.is_set():
                break
            self.restarts += 1
            if self.restarts >= FIRST_DEATHS_MAX and not self._was_ready.is_set():
                raise Unavailable(f"{self.spec.name} does not start: {describe(code)}\n{self.log_tail()}")
            if time.monotonic() - began > HEALTHY_S:
                delay_s = RESTART_S_MIN
            self.state = "restarting"
            self._say("died", f"{self.spec.name} {describe(code)}; it starts again in {delay_s:g} s")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), timeout=delay_s)
            delay_s = min(delay_s * 2, RESTART_S_MAX)
        self.state = "stopped"

    async def _run_once(self) -> int:
        self.state, self.reason = "starting", ""
        leash = (sys.executable, "-I", "-S", str(Path(__file__).with_name("leash.py")))
        with self._open_log() as log:
            self._process = await asyncio.create_subprocess_exec(
                *leash,
                str(int(self.spec.death_signal)),
                str(os.getpid()),
                *self.spec.command,
                env={**os.environ, **self.spec.environment},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C on the terminal reaches the supervisor alone, which drains in order.
            )
        if self._stopping.is_set():
            self._signal(signal.SIGTERM)
        probing = asyncio.create_task(self._probe())
        try:
            return await self._process.wait()
        except asyncio.CancelledError:
            self._signal(signal.SIGKILL)
            raise
        finally:
            while not probing.done():  # until Python 3.12 a cancel may get lost in `asyncio.wait_for`
                probing.cancel()
                await asyncio.wait({probing}, timeout=PROBE_S)

    async def _probe(self) -> None:
        """Keep `state` true to what the process says of itself."""
        announced = False
        while True:
            self.reason = await self.spec.ready() or ""
            if self._stopping.is_set():
                return
            if not self.reason:
                self.state = "ready"
                self._was_ready.set()
                if not announced:
                    self._say("ready", f"{self.spec.name} is ready" + (" again" if self.restarts else ""))
                    announced = True
            elif announced:
                self.state = "not ready"
            await asyncio.sleep(PROBE_S if self.reason else PROBE_WHEN_READY_S)

    def _open_log(self) -> BinaryIO:
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        if self.log_path.exists() and self.log_path.stat().st_size > LOG_BYTES_MAX:
            self.log_path.replace(self.log_path.with_suffix(".log.1"))
        return self.log_path.open("ab")

    def _signal(self, number: signal.Signals) -> None:
        if self.pid is not None and self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    def _say(self, what: Literal["started", "ready", "died", "stopped", "killed"], text: str) -> None:
        self._notify(Notice(name=self.spec.name, what=what, text=text))


def describe(code: int) -> str:
    """Say in words how a process ended."""
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"
