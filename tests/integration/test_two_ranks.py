"""The shortest of `make test-distributed`: two processes of torchrun train what this one trains."""

from __future__ import annotations

from pathlib import Path

import pytest

from jupiter.trainer.student import Student
from tests.distributed.launch import settings, train
from tests.distributed.train_steps import rows_of_steps
from tests.tiny_model import make_tiny_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_two_processes_train_what_this_one_trains(tmp_path: Path) -> None:
    model = make_tiny_model(tmp_path / "model")
    two = train(model, tmp_path / "two", processes=2, steps=(0, 3))
    student = Student(model, settings())
    one = [student.step(rows, number=number) for number, rows in enumerate(rows_of_steps(0, 3))]
    assert two.losses == pytest.approx([outcome.loss for outcome in one], rel=1e-6)
    assert two.norms == pytest.approx([outcome.gradient_norm for outcome in one], rel=1e-5)
    tensors = student.state()
    for name, tensor in two.tensors().items():
        assert float((tensor - tensors[name]).abs().max()) < 1e-5, name
