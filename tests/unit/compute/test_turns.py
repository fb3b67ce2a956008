"""Work in a thread, turn by turn: others get theirs, and an end of the service ends it early."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import pytest

from jupiter.compute import ComputeLease, Interrupted, Turns, compute


def test_the_lease_changes_hands_between_items(tmp_path: Path) -> None:
    lease = ComputeLease(tmp_path, slots=1, turn_s_max=0.05)
    order: list[str] = []

    def trainer() -> None:
        with lease.turn_in_thread("training"):
            order.append("training")

    with Turns(lease, purpose="evaluating") as turns:
        other = threading.Thread(target=trainer)
        other.start()
        deadline = time.monotonic() + 10
        while not order and time.monotonic() < deadline:
            time.sleep(0.01)
            turns.between()
        order.append("evaluating")
    other.join()
    assert turns.waited_s > 0
    assert order == ["training", "evaluating"]


def test_an_interruption_ends_the_work_and_frees_the_lease(tmp_path: Path) -> None:
    lease, interrupted = ComputeLease(tmp_path, slots=1, turn_s_max=1), threading.Event()
    with Turns(lease, purpose="evaluating", interrupted=interrupted) as turns:
        turns.between()
        interrupted.set()
        with pytest.raises(Interrupted):
            turns.between()
    with lease.turn_in_thread("other"):
        pass


def test_work_that_was_interrupted_while_it_waited_never_begins(tmp_path: Path) -> None:
    lease, interrupted = ComputeLease(tmp_path, slots=1, turn_s_max=1), threading.Event()
    interrupted.set()
    with pytest.raises(Interrupted), Turns(lease, purpose="evaluating", interrupted=interrupted):
        pytest.fail("it began")
    with lease.turn_in_thread("other"):
        pass


async def test_a_cancel_ends_the_work_at_its_next_pause(tmp_path: Path) -> None:
    lease, began, ended = ComputeLease(tmp_path, slots=1, turn_s_max=1), threading.Event(), threading.Event()

    def work(turns: Turns) -> None:
        began.set()
        try:
            while True:
                time.sleep(0.002)
                turns.between()
        finally:
            ended.set()

    task = asyncio.create_task(compute(lease, "generating", work))
    await asyncio.to_thread(began.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(ended.wait, 10)


async def test_what_the_work_returns_is_returned(tmp_path: Path) -> None:
    assert await compute(ComputeLease(tmp_path, slots=1, turn_s_max=1), "loading", lambda turns: turns.waited_s) == 0.0
