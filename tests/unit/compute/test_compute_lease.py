"""The compute lease between real processes: one at a time, in order, and the dead give their place back."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from jupiter.compute import ComputeLease

# Takes the lease, says so, keeps it until its standard input closes.
HOLDER = """
import asyncio, sys
from pathlib import Path
from jupiter.compute import ComputeLease

async def main():
    lease = ComputeLease(Path(sys.argv[1]), slots=int(sys.argv[2]), turn_s_max=5)
    async with lease.turn(sys.argv[3]):
        print("held", flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


@contextmanager
def holder(directory: Path, *, slots: int = 1, purpose: str = "training") -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLDER, str(directory), str(slots), purpose]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until_held(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"


def wait_until(condition: Callable[[], bool], *, timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


def tickets(directory: Path, purpose: str) -> list[Path]:
    return list(directory.glob(f"ticket-*-{purpose}-*"))


async def until_waiting(directory: Path, purpose: str) -> None:
    await asyncio.to_thread(wait_until, lambda: bool(tickets(directory, purpose)))


async def test_kill_9_of_the_holder_lets_the_next_one_in(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        await asyncio.to_thread(wait_until_held, process)
        waiting = asyncio.create_task(take(tmp_path, "generating"))
        await until_waiting(tmp_path, "generating")
        assert not waiting.done()
        os.kill(process.pid, signal.SIGKILL)
        await asyncio.wait_for(waiting, timeout=10)


async def take(directory: Path, purpose: str, *, slots: int = 1) -> None:
    async with ComputeLease(directory, slots=slots, turn_s_max=5).turn(purpose):
        pass


async def test_a_waiter_that_was_killed_does_not_hold_up_those_behind_it(tmp_path: Path) -> None:
    lease = ComputeLease(tmp_path, slots=1, turn_s_max=5)
    async with lease.turn("training"):
        with holder(tmp_path, purpose="generating") as process:
            await until_waiting(tmp_path, "generating")
            process.kill()
            process.wait()
    await asyncio.wait_for(take(tmp_path, "evaluating"), timeout=10)
    assert not tickets(tmp_path, "*")


async def test_two_slots_admit_two_processes_and_no_third(tmp_path: Path) -> None:
    with holder(tmp_path, slots=2) as first, holder(tmp_path, slots=2) as second:
        await asyncio.to_thread(wait_until_held, first)
        await asyncio.to_thread(wait_until_held, second)
        third = asyncio.create_task(take(tmp_path, "evaluating", slots=2))
        done, _ = await asyncio.wait([third], timeout=0.2)
        assert not done
        second.kill()
        await asyncio.wait_for(third, timeout=10)


async def test_waiters_enter_in_the_order_they_came_even_before_a_holder_that_returns(tmp_path: Path) -> None:
    lease = ComputeLease(tmp_path, slots=1, turn_s_max=5)
    order: list[str] = []

    async def compute(name: str) -> None:
        async with lease.turn(name):
            order.append(name)

    async with lease.turn("first"):
        waiters = []
        for name in ("a", "b", "c"):
            waiters.append(asyncio.create_task(compute(name)))
            await until_waiting(tmp_path, name)
    await compute("first again")
    await asyncio.gather(*waiters)
    assert order == ["a", "b", "c", "first again"]


async def test_a_turn_is_yielded_only_after_its_time_and_only_to_somebody(tmp_path: Path) -> None:
    patient = ComputeLease(tmp_path / "patient", slots=1, turn_s_max=3600)
    async with patient.turn("training") as turn:
        waiting = asyncio.create_task(take(tmp_path / "patient", "generating"))
        await until_waiting(tmp_path / "patient", "generating")
        assert not turn.should_yield()
    await waiting
    brisk = ComputeLease(tmp_path / "brisk", slots=1, turn_s_max=0)
    async with brisk.turn("training") as turn:
        assert not turn.should_yield()
        waiting = asyncio.create_task(take(tmp_path / "brisk", "generating"))
        await asyncio.to_thread(wait_until, turn.should_yield)
    await waiting


async def test_a_cancelled_waiter_leaves_the_queue(tmp_path: Path) -> None:
    lease = ComputeLease(tmp_path, slots=1, turn_s_max=5)
    async with lease.turn("training"):
        waiting = asyncio.create_task(take(tmp_path, "generating"))
        await until_waiting(tmp_path, "generating")
        waiting.cancel()
        await asyncio.wait([waiting])
        assert not tickets(tmp_path, "generating")


async def test_a_waiter_does_not_block_the_event_loop(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        await asyncio.to_thread(wait_until_held, process)
        waiting = asyncio.create_task(take(tmp_path, "generating"))
        await asyncio.wait_for(asyncio.sleep(0.05), timeout=5)
        assert not waiting.done()
        process.kill()
        await waiting


def test_a_worker_thread_takes_turns_with_processes(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        wait_until_held(process)
        process.kill()
        with ComputeLease(tmp_path, slots=1, turn_s_max=5).turn_in_thread("training"):
            assert not tickets(tmp_path, "training")


async def test_no_slots_means_no_lease_and_no_files(tmp_path: Path) -> None:
    lease = ComputeLease(tmp_path / "absent", slots=0, turn_s_max=0)
    async with lease.turn("training") as one, lease.turn("generating") as other:
        assert not one.should_yield()
        assert not other.should_yield()
    assert not (tmp_path / "absent").exists()


def test_never_two_holders_among_many_processes(tmp_path: Path) -> None:
    """Four processes take ten turns each; an exclusive file shows that no two were inside together."""
    code = """
import os, sys
from pathlib import Path
from jupiter.compute import ComputeLease
lease = ComputeLease(Path(sys.argv[1]) / "lease", slots=1, turn_s_max=0)
inside = Path(sys.argv[1]) / "inside"
for _ in range(10):
    with lease.turn_in_thread("test"):
        os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
        inside.unlink()
"""
    processes = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(4)]
    assert [process.wait() for process in processes] == [0, 0, 0, 0]
