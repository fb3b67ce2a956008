"""The state file where it cannot be written: the copy is, and the controller goes on."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from jupiter.controller.conductor import Conductor
from tests.unit.controller.cycle import Cycle


async def test_a_state_file_that_cannot_be_written_holds_nothing_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    occupied = tmp_path / "occupied"
    occupied.write_text("a file where the directory should be")
    wanted = occupied / "pipeline_state.json"
    cycle = Cycle(tmp_path, state_file=wanted)
    copy = cycle.config.data_dir / "pipeline_state.json"
    conductor = Conductor((await cycle.parts(cycle.runtime())).deps)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            await conductor.round()
    (warning,) = [entry.message for entry in caplog.records if "state file" in entry.message]
    assert str(wanted) in warning
    assert "controller.state_file" in warning
    assert json.loads(copy.read_text())["current_epoch"] == 0

    occupied.unlink()
    await conductor.round()
    assert wanted.read_bytes() == copy.read_bytes()


async def test_what_was_written_by_halves_is_removed(tmp_path: Path) -> None:
    wanted = tmp_path / "plots" / "pipeline_state.json"
    (wanted / "a directory of that name").mkdir(parents=True)
    await Conductor((await (cycle := Cycle(tmp_path, state_file=wanted)).parts(cycle.runtime())).deps).round()
    assert [path.name for path in wanted.parent.iterdir()] == ["pipeline_state.json"]
