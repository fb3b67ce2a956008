"""The figure is drawn from any state, and marks stand where they belong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jupiter.cli import run
from jupiter.cli.figure import draw, flip_position
from jupiter.cli.state import read_state
from jupiter.config import ClusterConfig
from jupiter.controller.projection import Projection
from jupiter.controller.state_file import pipeline_state
from jupiter.errors import JupiterError, NotFound


def epoch(number: int, version: int, score: float = 0.6) -> dict[str, Any]:
    return {
        "epoch": number,
        "score": score,
        "generator_score": 0.5,
        "ci_low": 0.02,
        "ci_high": 0.15,
        "generator_version": version,
    }


def flip(action: str, version: int, previous: int, epoch: int | None) -> dict[str, Any]:
    return {"action": action, "version": version, "previous_version": previous, "epoch": epoch}


def state(epochs: list[dict[str, Any]], flips: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "domain": "python_stdlib",
        "epochs": epochs,
        "generator_version": 2,
        "improvement_threshold": 0.05,
        "promotions": flips,
    }


def test_a_promotion_stands_at_its_epoch_and_a_rollback_between_the_epochs_it_parts() -> None:
    epochs = [epoch(1, 1), epoch(2, 1), epoch(3, 2), epoch(4, 1)]
    assert flip_position(flip("promoted", 2, 1, 2), epochs) == 2
    assert flip_position(flip("rolled_back", 1, 2, None), epochs) == 3.5


def test_a_rollback_after_the_last_epoch_stands_at_the_end() -> None:
    epochs = [epoch(1, 1), epoch(2, 2)]
    assert flip_position(flip("rolled_back", 1, 2, None), epochs) == 2.5
    assert flip_position(flip("rolled_back", 1, 2, None), []) == 0.5


@pytest.mark.parametrize(
    "content",
    [
        state([], []),
        state([epoch(1, 1)], []),
        state(
            [epoch(1, 1, 0.52), epoch(2, 1, 0.6), epoch(3, 2, 0.58)],
            [flip("promoted", 2, 1, 2), flip("rolled_back", 1, 2, None)],
        ),
    ],
)
def test_any_state_is_drawn_as_png(content: dict[str, Any], tmp_path: Path) -> None:
    draw(content, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_a_file_that_is_missing_or_something_else_is_named(tmp_path: Path) -> None:
    path = tmp_path / "pipeline_state.json"
    with pytest.raises(NotFound, match="jupiter up"):
        read_state(path)
    path.write_text("{")
    with pytest.raises(JupiterError, match="not JSON"):
        read_state(path)
    path.write_text(json.dumps({"domain": "x"}))
    with pytest.raises(JupiterError, match="it lacks epochs"):
        read_state(path)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("3", "an object is needed, this is 3"),
        ("[]", "an object is needed, this is []"),
        (json.dumps(state([{"epoch": 1, "score": 0.5}], [])), "it lacks epochs.0.generator_score, epochs.0.ci_low"),
        (json.dumps(state([epoch(1, 1) | {"score": "high"}], [])), "epochs.0.score: Input should be a valid number"),
        (json.dumps(state([epoch(1, 1) | {"score": float("nan")}], [])), "epochs.0.score: Input should be a finite"),
        (json.dumps(state([], [{"action": "promoted"}])), "it lacks promotions.0.version"),
        (json.dumps(state([], [flip("sold", 2, 1, 1)])), "promotions.0.action: Input should be 'promoted' or"),
        (json.dumps({**state([], []), "epochs": None}), "epochs: Input should be a valid list (it is None)"),
    ],
)
def test_a_state_that_is_none_is_one_clear_line(
    content: str, fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "pipeline_state.json"
    path.write_text(content)
    assert run(["plot", "--state", str(path), "--output", str(tmp_path / "figure.png")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"jupiter: {path} is no pipeline_state.json: ")
    assert fault in line
    assert not (tmp_path / "figure.png").exists()


def test_what_the_controller_writes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "pipeline_state.json"
    written = pipeline_state(Projection(domain="python_stdlib"), [], ClusterConfig())
    path.write_text(json.dumps(written))
    assert read_state(path) == written
    more = state([epoch(1, 1) | {"evaluation_id": "e"}], [flip("rolled_back", 1, 2, None) | {"reason": "r"}])
    path.write_text(json.dumps(more))
    assert read_state(path) == more
