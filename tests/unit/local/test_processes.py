"""The supervision of one process, with real processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from jupiter.errors import Unavailable
from jupiter.local.processes import Notice, ProcessSpec, SupervisedProcess

# Writes its pid where the test sees it, then waits; on SIGTERM it writes `drained`.
WORKER = """
import os, signal, sys, time
from pathlib import Path
directory = Path(sys.argv[1])
def drain(*_):
    (directory / "drained").touch()
    sys.exit(0)
signal.signal(signal.SIGTERM, drain if sys.argv[2] == "drains" else signal.SIG_IGN)
(directory / "pid.new").write_text(str(os.getpid()))
(directory / "pid.new").rename(directory / "pid")
while True:
    time.sleep(60)
"""


def worker(directory: Path, *, drains: bool = True) -> ProcessSpec:
    async def ready() -> str | None:
        return None if (directory / "pid").exists() else "no pid yet"

    command = (sys.executable, "-c", WORKER, str(directory), "drains" if drains else "ignores")
    return ProcessSpec(name="worker", command=command, ready=ready, drain_s=10 if drains else 0.2)


@contextlib.asynccontextmanager
async def supervised(spec: ProcessSpec, directory: Path) -> AsyncIterator[tuple[SupervisedProcess, list[Notice]]]:
    notices: list[Notice] = []
    process = SupervisedProcess(spec, log_path=directory / "logs" / "worker.log", notify=notices.append)
    process.start()
    try:
        yield process, notices
    finally:
        await process.stop()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - the condition is another process's doing
            await asyncio.sleep(0.01)


def pid_written(directory: Path) -> int:
    return int((directory / "pid").read_text())


async def test_a_killed_process_is_restarted_and_it_is_said(tmp_path: Path) -> None:
    async with supervised(worker(tmp_path), tmp_path) as (process, notices):
        await process.until_ready(timeout_s=20)
        first = pid_written(tmp_path)
        os.kill(first, signal.SIGKILL)
        await until(lambda: pid_written(tmp_path) != first)
        await until(lambda: [notice.what for notice in notices] == ["ready", "died", "ready"])
        assert process.restarts == 1
        assert "SIGKILL" in notices[1].text
    assert process.state == "stopped"


async def test_stop_drains_and_does_not_restart(tmp_path: Path) -> None:
    async with supervised(worker(tmp_path), tmp_path) as (process, notices):
        await process.until_ready(timeout_s=20)
    assert (tmp_path / "drained").exists()
    assert [notice.what for notice in notices] == ["ready"]
    assert process.pid is None


async def test_a_process_that_ignores_sigterm_is_killed_after_its_time(tmp_path: Path) -> None:
    async with supervised(worker(tmp_path, drains=False), tmp_path) as (process, notices):
        await process.until_ready(timeout_s=20)
        pid = pid_written(tmp_path)
    assert notices[-1].what == "killed"
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_process_that_cannot_start_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    async def never() -> str | None:
        return "nothing answers"

    command = (sys.executable, "-c", "import sys; sys.exit('no model called foo')")
    spec = ProcessSpec(name="generator", command=command, ready=never)
    async with supervised(spec, tmp_path) as (process, _):
        with pytest.raises(
            Unavailable, match=r"generator does not start: ended with exit code 1[\s\S]*no model called"
        ):
            await process.until_ready(timeout_s=30)


async def test_a_process_that_never_becomes_ready_says_why(tmp_path: Path) -> None:
    async def never() -> str | None:
        return "the bucket is missing"

    spec = ProcessSpec(name="curator", command=worker(tmp_path).command, ready=never)
    async with supervised(spec, tmp_path) as (process, _):
        with pytest.raises(Unavailable, match="the bucket is missing"):
            await process.until_ready(timeout_s=0.5)


def test_children_die_with_a_supervisor_that_was_killed(tmp_path: Path) -> None:
    code = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_processes import supervised, worker
async def main():
    directory = Path(sys.argv[1])
    async with supervised(worker(directory), directory) as (process, _):
        await process.until_ready(timeout_s=20)
        print("ready", flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""
    command = [sys.executable, "-c", code, str(tmp_path), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        assert supervisor.stdout.readline() == "ready\n"
        child = os.pidfd_open(pid_written(tmp_path))
        supervisor.kill()
    readable, _, _ = select.select([child], [], [], 20)
    assert readable, "the child outlived its supervisor"
    os.close(child)
