"""Start the trainer's code in one or several processes, as users do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open

from jupiter.config import ClusterConfig
from jupiter.config.sections import TrainerSection
from tests.distributed.train_steps import LOSSES_FILE, Task

__all__ = ["Outcome", "environment", "in_processes", "python_or_torchrun", "settings", "train"]

ROOT = Path(__file__).parents[2]
TRAIN_S_MAX = 300.0


def settings(**changes: Any) -> TrainerSection:
    return TrainerSection.model_validate({"device": "cpu", "precision": "float32", "learning_rate": 1e-3} | changes)


def python_or_torchrun(processes: int, *, restarts_max: int = 0) -> list[str]:
    """Return the command before `-m MODULE` that starts a module in so many processes."""
    if processes == 1:
        return [sys.executable]
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *("--nproc-per-node", str(processes), "--max-restarts", str(restarts_max), "--monitor-interval", "0.1"),
    ]


def environment(**more: str) -> dict[str, str]:
    """Return this process's environment without settings, and with what the children need."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("JUPITER_", "PYTEST_"))}
    paths = os.pathsep.join([str(ROOT), *filter(None, [clean.get("PYTHONPATH")])])
    return {**clean, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **more}


def in_processes(processes: int, *program: str) -> subprocess.CompletedProcess[str]:
    """Run a program, or `-m` and a module, and its arguments in so many processes, to its end, good or bad."""
    return subprocess.run(
        [*python_or_torchrun(processes), *program],
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TRAIN_S_MAX,
        check=False,
    )


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run of `train_steps` left."""

    directory: Path

    @property
    def losses(self) -> list[float]:
        return [step["loss"] for step in self._read()["outcomes"]]

    @property
    def norms(self) -> list[float]:
        return [step["norm"] for step in self._read()["outcomes"]]

    @property
    def processes(self) -> str | None:
        found: str | None = self._read()["processes"]
        return found

    def _read(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.directory / LOSSES_FILE).read_bytes())
        return found

    def tensors(self, name: str = "training_state.safetensors") -> dict[str, Any]:
        """Return the tensors of a file by name, without random state: it belongs to a process."""
        with safe_open(self.directory / name, "pt") as file:
            return {key: file.get_tensor(key) for key in file.keys() if not key.startswith("random.")}  # noqa: SIM118

    def published(self) -> dict[str, Any]:
        return self.tensors("model/model.safetensors")


def train(
    model: Path,
    directory: Path,
    *,
    processes: int,
    steps: tuple[int, int],
    resume: Outcome | None = None,
    trainer: TrainerSection | None = None,
) -> Outcome:
    """Take the steps in a directory of their own; raises when a process fails."""
    directory.mkdir(parents=True)
    output = directory / "output"
    task = Task(
        model=model,
        config=ClusterConfig(data_dir=directory / "data", trainer=trainer or settings()),
        steps=steps,
        resume=resume and resume.directory,
        output=output,
    )
    (directory / "task.json").write_text(task.model_dump_json())
    done = in_processes(processes, "-m", "tests.distributed.train_steps", str(directory / "task.json"))
    assert done.returncode == 0, done.stderr[-4000:]
    outcome = Outcome(directory=output)
    assert outcome.processes == (None if processes == 1 else str(processes)), "so many really ran"
    return outcome
