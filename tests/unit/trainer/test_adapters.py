"""LoRA: which weights learn, what is published, and how a run with it goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch  # noqa: TID253 - tensors are what is tested here

from jupiter.config.sections import TrainerSection
from jupiter.errors import ConfigError
from jupiter.modeling import load_model
from jupiter.trainer.checkpoints import RunState, read_state, write_model, write_state
from jupiter.trainer.config import check_same_run, recorded
from jupiter.trainer.packing import Encoded, pack
from jupiter.trainer.student import Student
from tests.tiny_model import make_tiny_model

ROWS = pack(
    [
        Encoded(sample_id=str(n), tokens=tuple((7 * n + 3 * k) % 500 + 3 for k in range(length)))
        for n, length in enumerate((17, 40, 3, 25, 31))
    ],
    length=64,
)


def settings(**changes: Any) -> TrainerSection:
    defaults = {"device": "cpu", "precision": "float32", "learning_rate": 5e-3, "adapter": "lora", "adapter_rank": 4}
    return TrainerSection.model_validate(defaults | changes)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


def trained(tiny: Path, *, steps: int = 6, **changes: Any) -> Student:
    student = Student(tiny, settings(**changes))
    for number in range(steps):
        student.step(ROWS, number=number)
    return student


def test_it_begins_as_the_model_that_it_is_added_to(tiny: Path) -> None:
    plain = Student(tiny, settings(adapter="none"))
    assert Student(tiny, settings()).row_loss(ROWS[0]).item() == plain.row_loss(ROWS[0]).item()


def test_only_the_adapters_learn(tiny: Path) -> None:
    before = {name: tensor.clone() for name, tensor in Student(tiny, settings()).model.named_parameters()}
    student = trained(tiny)
    changed = {name for name, tensor in student.model.named_parameters() if not torch.equal(tensor, before[name])}
    assert changed
    assert all(".lora_" in name for name in changed)
    assert {name.partition(".")[0] for name in student.state()} == {"weight", "step", "exp_avg", "exp_avg_sq", "random"}
    assert all(".lora_" in name for name in student.state() if name.startswith("weight."))


def test_it_learns(tiny: Path) -> None:
    student = Student(tiny, settings())
    losses = [student.step(ROWS, number=number).loss for number in range(20)]
    assert losses[-1] < losses[0] - 0.3


@pytest.mark.parametrize("targets", ["all-linear", "q_proj,v_proj"])
def test_what_is_published_is_a_plain_model_that_computes_the_same(targets: str, tiny: Path, tmp_path: Path) -> None:
    student = trained(tiny, adapter_targets=targets)
    write_model(student, tmp_path, source=tiny, dtype="bfloat16")
    plain, _ = load_model(tmp_path / "model", dtype="float32")
    base, _ = load_model(tiny, dtype="float32")
    assert {name: tensor.shape for name, tensor in plain.state_dict().items()} == {
        name: tensor.shape for name, tensor in base.state_dict().items()
    }
    ids = torch.tensor([ROWS[0].tokens[:17]])
    student.model.eval()
    with torch.no_grad():
        mine, merged, unmoved = (
            model(input_ids=ids, use_cache=False).logits for model in (_masked(student), plain, base)
        )
    assert (mine - merged).abs().max() < 0.2 * (mine - unmoved).abs().max(), "but for the rounding to bfloat16"


def _masked(student: Student) -> Any:
    student.attend("sdpa")
    return student.model


def test_a_restored_adapter_takes_the_same_steps_bit_for_bit(tiny: Path, tmp_path: Path) -> None:
    student = trained(tiny)
    write_state(student, RunState(run="run1", base_manifest_sha256="0" * 64, config={}), tmp_path)
    went_on = [student.step(ROWS, number=number) for number in range(6, 9)]
    restored = Student(tiny, settings())
    restored.restore(read_state(tmp_path)[1])
    assert [restored.step(ROWS, number=number) for number in range(6, 9)] == went_on


def test_layers_that_the_model_lacks_are_refused_by_name(tiny: Path) -> None:
    with pytest.raises(ConfigError, match=r"trainer\.adapter_targets is 'w_query'"):
        Student(tiny, settings(adapter_targets="w_query"))


def test_a_run_keeps_its_adapter_and_one_that_is_older_than_adapters_has_none() -> None:
    before = recorded(settings(adapter="none"), eval_every_steps=4)
    older = {key: value for key, value in before.items() if not key.startswith("adapter")}
    check_same_run(older, before)
    with pytest.raises(ConfigError, match=r"trainer\.adapter is 'lora'.*name a new run"):
        check_same_run(older, recorded(settings(adapter_rank=16), eval_every_steps=4))
