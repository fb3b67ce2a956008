"""A program: take some steps by as many processes as it is started in, and save what a checkpoint would hold.

    torchrun --standalone --nproc-per-node 2 -m tests.distributed.train_steps TASK.json
    python -m tests.distributed.train_steps TASK.json

What it runs is the trainer's own: `join`, `LeadingStudent`, `follow`, the files of `checkpoints`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from jupiter.config import ClusterConfig
from jupiter.records import Record
from jupiter.trainer.packing import Encoded, Row, divide, pack

__all__ = ["LOSSES_FILE", "Task", "rows_of_steps"]

LOSSES_FILE = "losses.json"
STEPS_MAX = 8


class Task(Record):
    """What is to be done."""

    model: Path
    config: ClusterConfig
    steps: tuple[int, int]
    """The first, and the one after the last."""
    resume: Path | None = None
    """What an earlier task saved."""
    output: Path
    """Gets `losses.json`, the training state and `model/`."""


def rows_of_steps(first: int, last: int, *, length: int = 64) -> tuple[tuple[Row, ...], ...]:
    """Return the rows of some steps, always the same: samples of many lengths, and rows that do not go round."""
    samples = [
        Encoded(
            sample_id=str(number),
            tokens=tuple((7 * number + 3 * place) % 500 + 3 for place in range(3 + number * 13 % 45)),
            learned_from=1 + number % 2,
        )
        for number in range(STEPS_MAX * 9)
    ]
    total = sum(len(sample.tokens) for sample in samples)
    steps = divide(samples, tokens_per_step=total // STEPS_MAX)
    assert len(steps) == STEPS_MAX
    return tuple(pack(step, length=length) for step in steps[first:last])


def main() -> None:
    import torch

    from jupiter.trainer import checkpoints
    from jupiter.trainer.crew import LeadingStudent, follow
    from jupiter.trainer.parallel import join

    torch.set_num_threads(1)
    task = Task.model_validate_json(Path(sys.argv[1]).read_bytes())
    world = join(task.config)
    if world.rank > 0:
        follow(world, task.config.trainer)
        return
    student = LeadingStudent(task.model, task.config.trainer, world=world)
    if task.resume is not None:
        _, tensors = checkpoints.read_state(task.resume)
        student.restore(tensors)
    first, last = task.steps
    outcomes: list[dict[str, Any]] = []
    for number, rows in enumerate(rows_of_steps(first, last), start=first):
        outcome = student.step(rows, number=number)
        outcomes.append({"loss": outcome.loss, "norm": outcome.gradient_norm, "tokens": outcome.learned_tokens})
    state = checkpoints.RunState(run="run1", base_manifest_sha256="0" * 64, config={}, step=last)
    checkpoints.write_state(student, state, task.output)
    checkpoints.write_model(student, task.output, source=task.model, dtype=task.config.generator.dtype)
    world.leave()
    (task.output / LOSSES_FILE).write_text(
        json.dumps({"outcomes": outcomes, "processes": os.environ.get("WORLD_SIZE")})
    )


if __name__ == "__main__":
    main()
