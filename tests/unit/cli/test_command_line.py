"""The command line as a whole: quick, documented, and with errors of one line."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import click
import pytest

from jupiter.cli import COMMANDS, cli, run
from jupiter.cli.reference import render

ROOT = Path(__file__).parents[3]
HELP_S_MAX = 0.5


def test_help_answers_in_less_than_half_a_second() -> None:
    """Of processor time: how long that takes depends on what else the machine does."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    answer = subprocess.run([sys.executable, "-m", "jupiter.cli", "--help"], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < HELP_S_MAX
    assert all(name in answer.stdout for name in COMMANDS)


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from jupiter.cli import run; run(['--help']); print(sorted(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for module in ("torch", "pydantic", "httpx", "rich", "nats", "minio", "matplotlib"):
        assert f"'{module}'" not in answer.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_each_command_says(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.name == name
    assert command.short_help == COMMANDS[name][1]


def test_the_reference_is_up_to_date() -> None:
    assert (ROOT / "docs" / "cli.md").read_text() == render(), "run `jupiter docs`"


def test_a_mistyped_command_is_one_line_with_the_right_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["statsu"]) == 2
    assert capsys.readouterr().err == "jupiter: there is no command 'statsu'; did you mean `jupiter status`?\n"


@pytest.mark.parametrize("arguments", [[], ["benchmark"], ["dead-letters"]])
def test_a_group_without_a_command_shows_its_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    assert capsys.readouterr().err.startswith(f"Usage: {' '.join(['jupiter', *arguments])} [OPTIONS] COMMAND")


def test_a_wrong_setting_is_one_line_with_the_right_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--set", "trainer.sed=1", "check"]) == 2
    captured = capsys.readouterr()
    assert captured.err == "jupiter: the command line: unknown key trainer.sed; did you mean trainer.seed?\n"
    assert captured.out == ""


def test_a_setting_without_a_value_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--set", "trainer.run", "check"]) == 2
    expected = "--set trainer.run: no value; write --set trainer.run=VALUE (nothing after = is empty)"
    assert capsys.readouterr().err == f"jupiter: {expected}\n"
    assert run(["--set", "judge.url=", "check"]) == 0


def test_a_file_that_does_not_exist_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--config", "absent.yaml", "check"]) == 2
    assert "absent.yaml" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["status"], ["samples"], ["history"], ["evaluations"], ["promote"], ["rollback"], ["dead-letters", "list"]],
)
def test_a_command_without_a_running_system_says_how_to_start_it(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ["--set", f"data_dir={tmp_path}", "--set", "controller.port=1"]
    assert run([*settings, *arguments]) == 1
    remedy = "start it with `jupiter up`, or name another address with --api"
    assert capsys.readouterr().err == f"jupiter: nothing answers at http://127.0.0.1:1; {remedy}\n"


def test_a_new_domain_is_valid_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["new-domain", "kubernetes", "--description", 'Pods: and "such"']) == 0
    assert run(["--set", "domain=kubernetes", "check"]) == 0
    assert "description: 'Pods: and \"such\"'" in capsys.readouterr().out
    assert run(["new-domain", "kubernetes"]) == 1
    assert "exists already" in capsys.readouterr().err
    assert run(["new-domain", "Kube-rnetes"]) == 2
    assert "lower-case" in capsys.readouterr().err


def test_check_shows_no_secret_and_names_contradictions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run(["new-domain", "kubernetes"])
    secrets = ["--set", "s3.secret_key=hush", "--set", "curator.redis_url=redis://:hush@10.0.0.1"]
    settings = ["--set", "domain=kubernetes", "--set", "self_improvement.eval_every_steps=20000", *secrets]
    for form in ([], ["--json"]):
        assert run([*settings, "check", *form]) == 1
        captured = capsys.readouterr()
        assert "hush" not in captured.out
        assert "self_improvement.eval_every_steps (20000) is more than min_steps_before_replace" in (
            captured.out if form else captured.err
        )


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.yaml")), ids=lambda path: path.name)
def test_every_configuration_of_the_repository_passes_the_check(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    assert run(["--config", str(path), "check"]) == 0
    assert capsys.readouterr().err == ""


def test_check_refuses_requests_that_are_more_than_an_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run(["new-domain", "birds"])
    path = tmp_path / "config" / "domains" / "birds.yaml"
    path.write_text(path.read_text().replace("a beginner", "ж" * 45))
    assert run(["--set", "domain=birds", "check"]) == 0
    assert run(["--set", "domain=birds", "--set", "controller.samples_per_request=256", "check"]) == 2
    assert "set controller.samples_per_request to" in capsys.readouterr().err


def test_a_publication_is_rehearsed_without_a_running_system(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.md").write_text("text")
    (tmp_path / "b.txt").write_bytes(b"\xff")
    assert run(["publish", "--dry-run", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert captured.out == "1 documents could be published; 1 bad\n"
    assert captured.err == f"  {tmp_path / 'b.txt'}: not UTF-8: byte 0 is 0xff\n"


def test_the_rehearsal_of_a_publication_knows_the_domains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.md").write_text("text")
    assert run(["publish", "--dry-run", "--domain", "python_stdlib", str(tmp_path)]) == 0
    assert run(["publish", "--dry-run", "--domain", "nosuch", str(tmp_path)]) == 2
    assert "there is no domain 'nosuch'" in capsys.readouterr().err


def test_the_figure_of_a_run_is_drawn_from_its_state_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pipeline_state.json").write_text(
        '{"domain": "d", "epochs": [], "generator_version": null, "improvement_threshold": 0.05, "promotions": []}'
    )
    output = tmp_path / "figure.png"
    assert run(["--set", f"data_dir={tmp_path}", "plot", "--output", str(output)]) == 0
    assert output.read_bytes().startswith(b"\x89PNG")
