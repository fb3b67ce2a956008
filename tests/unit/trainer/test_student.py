"""The arithmetic of training: packing is exact, logits are spared, state is whole."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch  # noqa: TID253 - tensors are what is tested here

from jupiter.config.sections import TrainerSection
from jupiter.modeling import load_model
from jupiter.trainer.attention import PER_SAMPLE
from jupiter.trainer.packing import Encoded, Row, pack
from jupiter.trainer.student import Student
from tests.tiny_model import make_tiny_model

# One token id apart from the others, so that a leak between samples would show.
SAMPLES = tuple(
    Encoded(sample_id=str(n), tokens=tuple((7 * n + 3 * k) % 500 + 3 for k in range(length)), learned_from=learned)
    for n, (length, learned) in enumerate([(17, 5), (40, 1), (3, 2), (25, 20), (31, 1)])
)


def settings(**changes: Any) -> TrainerSection:
    return TrainerSection.model_validate({"device": "cpu", "precision": "float32", "learning_rate": 1e-3} | changes)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


def save_random(config: Any, directory: Path) -> None:
    """Save a random model of any architecture."""
    from transformers import AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        auto.from_config(config).save_pretrained(directory)


@pytest.fixture(scope="module")
def tiny_gpt2(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    """Another architecture: learned positions, dropout, biases."""
    from transformers import GPT2Config

    directory = tmp_path_factory.mktemp("gpt2")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (directory / name).write_bytes((tiny / name).read_bytes())
    save_random(GPT2Config(vocab_size=512, n_embd=32, n_layer=2, n_head=2, n_positions=256), directory)
    return directory


def rows(*groups: tuple[Encoded, ...]) -> tuple[Row, ...]:
    return tuple(row for group in groups for row in pack(group, length=256))


def gradient(student: Student) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in student.model.parameters() if p.grad is not None])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("model", ["tiny", "tiny_gpt2"])
def test_a_packed_sample_has_the_loss_it_has_alone(model: str, precision: str, request: pytest.FixtureRequest) -> None:
    student = Student(request.getfixturevalue(model), settings(precision=precision))
    student.model.eval()  # dropout off
    packed = [student.row_loss(row).item() for row in rows(SAMPLES)]
    alone = [student.row_loss(row).item() for row in rows(*((sample,) for sample in SAMPLES))]
    assert math.fsum(packed) == pytest.approx(math.fsum(alone), rel=1e-5 if precision == "float32" else 1e-2)


def test_packed_gradients_are_those_of_samples_alone(tiny: Path) -> None:
    student = Student(tiny, settings())
    gradients = []
    for batch in (rows(SAMPLES), rows(*((sample,) for sample in SAMPLES))):
        for row in batch:
            torch.autograd.backward(student.row_loss(row))
        gradients.append(gradient(student))
        student.optimizer.zero_grad()
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-4)


def test_what_stands_before_in_the_row_changes_nothing(tiny: Path) -> None:
    """Bit for bit where the kernels allow it: the second sample never sees the first."""
    student = Student(tiny, settings())
    losses = []
    for first in (SAMPLES[1], Encoded(sample_id="x", tokens=(9,) * len(SAMPLES[1].tokens), learned_from=39)):
        (row,) = rows((Encoded(sample_id="f", tokens=first.tokens, learned_from=39), SAMPLES[0]))
        own = Row(
            tokens=row.tokens,
            positions=row.positions,
            lengths=row.lengths,
            loss_at=row.loss_at[1:],
            targets=row.targets[1:],
        )
        losses.append(student.row_loss(own).item())
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_the_loss_is_that_of_the_whole_logits(tiny: Path) -> None:
    """Logits at chosen places only, against transformers' own loss over all of them."""
    student = Student(tiny, settings())
    sample = SAMPLES[3]
    (row,) = rows((sample,))
    ids = torch.tensor([sample.tokens])
    labels = ids.clone()
    labels[0, : sample.learned_from] = -100
    reference, _ = load_model(tiny, dtype="float32")
    whole = reference(input_ids=ids, labels=labels).loss.item() * len(row.targets)
    assert student.row_loss(row).item() == pytest.approx(whole, rel=1e-5)


def test_attention_per_sample_is_chosen_and_computes_what_the_masked_one_does(tiny: Path) -> None:
    student = Student(tiny, settings())
    (row,) = rows(SAMPLES)
    chosen = student.model.config._attn_implementation
    per_sample = student.row_loss(row).item()
    student.attend("sdpa")
    assert chosen == PER_SAMPLE
    assert per_sample == pytest.approx(student.row_loss(row).item(), rel=1e-5)


def test_a_model_that_needs_more_than_causal_attention_keeps_its_own(tiny: Path, tmp_path: Path) -> None:
    """Sliding windows: attention per sample would look too far back."""
    from transformers import MistralConfig

    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((tiny / name).read_bytes())
    config = MistralConfig(
        vocab_size=512,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        sliding_window=8,
    )
    save_random(config, tmp_path)
    student = Student(tmp_path, settings())
    assert student.model.config._attn_implementation == "sdpa"
    packed = [student.row_loss(row).item() for row in rows(SAMPLES)]
    alone = [student.row_loss(row).item() for row in rows(*((sample,) for sample in SAMPLES))]
    assert math.fsum(packed) == pytest.approx(math.fsum(alone), rel=1e-5)


@pytest.mark.parametrize("option", [{}, {"activation_checkpointing": True}])
def test_steps_learn_and_checkpointed_activations_change_nothing(tiny: Path, option: dict[str, Any]) -> None:
    student = Student(tiny, settings(**option))
    losses = [student.step(rows(SAMPLES), number=number).loss for number in range(12)]
    assert losses[-1] < losses[0] - 0.5
    plain = Student(tiny, settings())
    assert plain.step(rows(SAMPLES), number=0).loss == pytest.approx(losses[0], rel=1e-6)


def test_accumulated_rows_make_the_same_step_as_one_row(tiny: Path) -> None:
    one, many = Student(tiny, settings()), Student(tiny, settings())
    together = one.step(rows(SAMPLES), number=0)
    apart = many.step(rows(SAMPLES[:2], SAMPLES[2:]), number=0)
    assert apart.loss == pytest.approx(together.loss, rel=1e-5)
    assert apart.gradient_norm == pytest.approx(together.gradient_norm, rel=1e-4)
    assert apart.tokens == together.tokens == sum(len(sample.tokens) for sample in SAMPLES)


def test_the_learning_rate_warms_up_and_stays(tiny: Path) -> None:
    student = Student(tiny, settings(warmup_steps=4))
    rates = [student.step(rows(SAMPLES[:1]), number=number).learning_rate for number in (0, 1, 3, 4, 1_000_000)]
    assert rates == pytest.approx([0.25e-3, 0.5e-3, 1e-3, 1e-3, 1e-3])


def test_a_step_that_is_not_finite_changes_no_weight(tiny: Path) -> None:
    student = Student(tiny, settings())
    with torch.no_grad():
        next(iter(student.model.parameters()))[5, 0] = float("nan")
    before = [parameter.clone() for parameter in student.model.parameters()]
    outcome = student.step(rows(SAMPLES), number=0)
    assert not outcome.finite
    for parameter, was in zip(student.model.parameters(), before, strict=True):
        assert torch.equal(parameter.nan_to_num(), was.nan_to_num())


@pytest.mark.parametrize("model", ["tiny", "tiny_gpt2"])
def test_a_restored_student_takes_the_same_steps_bit_for_bit(model: str, request: pytest.FixtureRequest) -> None:
    """GPT-2 has dropout, so its random state matters too."""
    directory = request.getfixturevalue(model)
    student = Student(directory, settings(precision="bfloat16"))
    for number in range(3):
        student.step(rows(SAMPLES), number=number)
    kept = {name: tensor.clone() for name, tensor in student.state().items()}
    went_on = [student.step(rows(SAMPLES), number=number) for number in range(3, 6)]
    restored = Student(directory, settings(precision="bfloat16"))
    restored.restore(kept)
    assert [restored.step(rows(SAMPLES), number=number) for number in range(3, 6)] == went_on
    for name, tensor in student.state().items():
        assert torch.equal(restored.state()[name], tensor), name


def test_served_weights_are_bfloat16_and_tied_once(tiny: Path) -> None:
    served = Student(tiny, settings()).served_weights()
    assert {tensor.dtype for tensor in served.values()} == {torch.bfloat16}
    assert served["lm_head.weight"].data_ptr() == served["model.embed_tokens.weight"].data_ptr()


@pytest.mark.parametrize("directory", ["tiny", "tiny_gpt2"])
def test_a_share_below_one_serves_what_lies_between_the_starting_model_and_the_student(
    directory: str, request: pytest.FixtureRequest
) -> None:
    start = request.getfixturevalue(directory)
    student = Student(start, settings(learning_rate=0.1))
    begun = {name: tensor.float() for name, tensor in student.served_weights().items()}
    student.step(rows(SAMPLES), number=5)
    learned = {name: tensor.float() for name, tensor in student.served_weights().items()}
    before = {name: tensor.clone() for name, tensor in student.state().items()}
    student.settings = settings(learning_rate=0.1, served_share=0.25)
    served = student.served_weights()
    assert served.keys() == learned.keys()
    for name, tensor in served.items():
        expected = begun[name] + 0.25 * (learned[name] - begun[name])
        assert torch.allclose(tensor.float(), expected, atol=2e-3, rtol=2e-2), name
    assert any(not torch.equal(served[name].float(), learned[name]) for name in served)
    assert all(torch.equal(tensor, before[name]) for name, tensor in student.state().items()), "training must not move"
    assert served["lm_head.weight"].data_ptr() in {
        served[name].data_ptr() for name in served if name != "lm_head.weight"
    }, "tied weights stay one tensor"
