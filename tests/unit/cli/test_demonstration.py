"""The demo's directory and files: what it may remove, and what it must not leave behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jupiter.cli import Settings, run
from jupiter.cli.demonstration import DEMO_MARKER, demo_configuration, empty, lowered
from jupiter.config import ClusterConfig
from jupiter.errors import Conflict
from jupiter.local.endpoints import only_supervisor

ROOT = Path(__file__).parents[3]


def filled(directory: Path, *, marked: bool) -> Path:
    """A data directory with something of everything in it."""
    (directory / "cache" / "base").mkdir(parents=True)
    (directory / "cache" / "base" / "model.safetensors").write_text("weights")
    (directory / "nats" / "streams").mkdir(parents=True)
    (directory / "nats" / "streams" / "1.blk").write_text("messages")
    (directory / "endpoints.json").write_text("{}")
    if marked:
        (directory / DEMO_MARKER).touch()
    return directory


def everything(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}


def test_what_an_earlier_demo_left_is_removed_but_its_converted_model(tmp_path: Path) -> None:
    place = filled(tmp_path / "demo", marked=True)
    empty(place)
    assert everything(place) == {
        DEMO_MARKER,
        "supervisor.lock",
        "cache",
        "cache/base",
        "cache/base/model.safetensors",
    }


def test_a_directory_that_no_demo_made_is_not_touched(tmp_path: Path) -> None:
    place = filled(tmp_path / "mine", marked=False)
    before = everything(place)
    with pytest.raises(Conflict, match="no demo made"):
        empty(place)
    assert everything(place) == before


@pytest.mark.parametrize("exists", [True, False])
def test_a_new_or_empty_directory_becomes_the_demos(tmp_path: Path, exists: bool) -> None:
    place = tmp_path / "demo"
    if exists:
        place.mkdir()
    empty(place)
    assert everything(place) == {DEMO_MARKER, "supervisor.lock"}
    empty(place)


def test_what_a_link_points_to_stays(tmp_path: Path) -> None:
    place = filled(tmp_path / "demo", marked=True)
    outside = filled(tmp_path / "outside", marked=False)
    before = everything(outside)
    (place / "documents").symlink_to(outside)
    (place / "notes").symlink_to(outside / "endpoints.json")
    empty(place)
    assert not (place / "documents").is_symlink()
    assert not (place / "notes").is_symlink()
    assert everything(outside) == before


def test_a_running_demo_keeps_what_it_has(tmp_path: Path) -> None:
    place = filled(tmp_path / "demo", marked=True)
    with only_supervisor(place):
        before = everything(place)
        with pytest.raises(Conflict, match="in use"):
            empty(place)
        assert everything(place) == before


def test_every_setting_that_differs_is_printed_and_no_other() -> None:
    assert list(lowered(ClusterConfig())) == []
    changed = ClusterConfig.model_validate(
        {"trainer": {"seed": 7}, "controller": {"sampling": {"max_new_tokens": 5}}, "domain": "made_up"}
    )
    default = ClusterConfig()
    assert set(lowered(changed)) == {
        f"domain = made_up (default {default.domain})",
        f"trainer.seed = 7 (default {default.trainer.seed})",
        f"controller.sampling.max_new_tokens = 5 (default {default.controller.sampling.max_new_tokens})",
    }


def test_a_secret_that_was_given_is_not_printed() -> None:
    changed = ClusterConfig.model_validate({"curator": {"redis_url": "redis://:hush@10.0.0.1"}})
    assert list(lowered(changed)) == ["curator.redis_url = (set) (default )"]


def test_the_demo_lowers_what_its_file_says_and_lets_the_thresholds_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    config = demo_configuration(Settings(overlays=(), assignments=()), control="shuffled")
    default = ClusterConfig().self_improvement
    assert config.trainer.control == "shuffled"
    assert config.self_improvement.improvement_threshold == default.improvement_threshold
    assert config.self_improvement.benchmark_samples == default.benchmark_samples
    names = {line.split(" = ")[0] for line in lowered(config)}
    assert {"data_dir", "self_improvement.eval_every_steps", "controller.state_file", "trainer.control"} <= names


@pytest.mark.parametrize(
    ("assignments", "state_file"),
    [
        ((), ".jupiter/demo/pipeline_state.json"),
        (("data_dir=elsewhere",), "elsewhere/pipeline_state.json"),
        (("data_dir=elsewhere", "controller.state_file=mine.json"), "mine.json"),
        (("controller.state_file=mine.json",), "mine.json"),
    ],
)
def test_the_state_lies_with_the_demos_data_unless_somebody_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, assignments: tuple[str, ...], state_file: str
) -> None:
    monkeypatch.chdir(ROOT)
    config = demo_configuration(Settings(overlays=(), assignments=assignments), control="none")
    assert config.controller.state_file == Path(state_file)


def test_a_demo_that_ends_early_leaves_no_earlier_report(tmp_path: Path) -> None:
    """In a process of its own: the command takes over the logging."""
    for name in ("report.json", "report.png"):
        (tmp_path / name).write_text("of an earlier run")
    command = ["--set", "domain=no_such_domain", "demo", "--report", str(tmp_path / "report.json")]
    environment = {**os.environ, "JUPITER_DATA_DIR": str(tmp_path / "data")}
    ended = subprocess.run(
        [sys.executable, "-m", "jupiter.cli", *command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert "no_such_domain" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "report.json").exists()
    assert not (tmp_path / "report.png").exists()


def test_a_demo_that_may_not_begin_leaves_the_earlier_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    place = filled(tmp_path / "data", marked=False)
    report = tmp_path / "report.json"
    report.write_text("of an earlier run")
    assert run(["--set", f"data_dir={place}", "demo", "--report", str(report)]) != 0
    assert "no demo made" in capsys.readouterr().err
    assert report.read_text() == "of an earlier run"
