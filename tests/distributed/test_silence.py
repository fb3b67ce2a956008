"""Ranks wait for a leader that has nothing to say, and not for one that has fallen silent."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.distributed.launch import in_processes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SILENCE_S = 15
# The leader says nothing of itself for longer than any rank would wait, then gives one order.
PROGRAM = f"""
import sys, time
from pathlib import Path
from jupiter.trainer import ranks
ranks.SILENCE_S_MAX, ranks.BEAT_S = {SILENCE_S}, float(sys.argv[1])
world = ranks.ManyProcesses.joined(device="cpu", home=Path("."))
if world.rank == 0:
    time.sleep({2 * SILENCE_S})
    world.tell("hello")
    world.leave()
else:
    print(list(world.orders()), flush=True)
"""


def heard(directory: Path, *, beat_s: float) -> subprocess.CompletedProcess[str]:
    program = directory / "program.py"
    program.write_text(PROGRAM)
    return in_processes(2, str(program), str(beat_s))


def test_an_idle_leader_keeps_the_others(tmp_path: Path) -> None:
    done = heard(tmp_path, beat_s=1)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == "['hello']"


def test_a_silent_leader_loses_them(tmp_path: Path) -> None:
    done = heard(tmp_path, beat_s=1000)
    assert done.returncode != 0
    assert "hello" not in done.stdout
    assert "Timed out" in done.stderr
