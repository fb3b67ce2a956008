"""A model directory is refused, with the reason, before anything unfit is allocated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from jupiter.modeling import UnfitModel, inspect_files, load_model, resolve_device
from tests.tiny_model import make_tiny_model


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return make_tiny_model(tmp_path / "model")


def edit_config(directory: Path, **changes: object) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_saved_model_loads_in_evaluation_mode_with_left_padding(directory: Path) -> None:
    model, tokenizer = load_model(directory)
    assert not model.training
    assert str(model.dtype) == "torch.bfloat16"
    assert tokenizer.padding_side == "left"
    assert tokenizer.pad_token_id is not None


def test_headers_tell_the_size_without_reading_the_weights(directory: Path) -> None:
    files = inspect_files(directory)
    model, _ = load_model(directory)
    assert files.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert files.size_bytes == 2 * files.parameters


def test_a_truncated_weight_file_is_refused(directory: Path) -> None:
    weights = directory / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UnfitModel, match="truncated"):
        load_model(directory)


@pytest.mark.parametrize("damage", [b"", b"\x00" * 4, b"\xff" * 64, b"\x08" + b"\x00" * 7 + b"not json"])
def test_a_file_that_is_no_safetensors_is_refused(directory: Path, damage: bytes) -> None:
    (directory / "model.safetensors").write_bytes(damage)
    with pytest.raises(UnfitModel, match=r"model\.safetensors"):
        load_model(directory)


def test_pickled_weights_are_never_read(directory: Path) -> None:
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")
    with pytest.raises(UnfitModel, match="only the safetensors format"):
        load_model(directory)


def test_a_model_that_brings_code_is_refused(directory: Path) -> None:
    edit_config(directory, auto_map={"AutoModelForCausalLM": "evil.Model"})
    with pytest.raises(UnfitModel, match="auto_map"):
        load_model(directory)


def test_an_adapter_beside_the_weights_is_refused(directory: Path) -> None:
    (directory / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(UnfitModel, match="adapter"):
        load_model(directory)


def test_shapes_that_disagree_with_the_config_are_refused(directory: Path) -> None:
    edit_config(directory, hidden_size=64, head_dim=16)
    with pytest.raises(UnfitModel, match="disagree"):
        load_model(directory)


def test_a_missing_weight_is_never_replaced_by_random_numbers(directory: Path) -> None:
    weights = load_file(directory / "model.safetensors")
    weights.pop("model.layers.1.mlp.up_proj.weight")
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UnfitModel, match="missing_keys"):
        load_model(directory)


def test_another_architecture_is_refused(directory: Path) -> None:
    config = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": 512, "n_embd": 48}
    (directory / "config.json").write_text(json.dumps(config | {"n_layer": 2, "n_head": 4}))
    with pytest.raises(UnfitModel, match="wrong architecture"):
        load_model(directory)


def test_an_unknown_architecture_is_refused(directory: Path) -> None:
    edit_config(directory, model_type="no_such_model")
    with pytest.raises(UnfitModel, match="not a causal language model"):
        load_model(directory)


def test_a_shard_outside_of_the_directory_is_refused(directory: Path) -> None:
    index = {"weight_map": {"lm_head.weight": "../elsewhere.safetensors"}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UnfitModel, match="not a file of the directory"):
        load_model(directory)


def test_a_model_larger_than_the_memory_is_refused_before_allocation(directory: Path) -> None:
    # A header that claims a petabyte, in a sparse file that really has that length on paper.
    size = 1 << 45
    header = json.dumps({"w": {"dtype": "BF16", "shape": [size // 2], "data_offsets": [0, size]}}).encode()
    weights = directory / "model.safetensors"
    weights.write_bytes(len(header).to_bytes(8, "little") + header)
    with weights.open("r+b") as stream:
        try:
            stream.truncate(8 + len(header) + size)
        except OSError:  # a file system without files of 32 TB refuses the length, as loading would
            size = 0
    with pytest.raises(UnfitModel, match="free on cpu" if size else "truncated"):
        load_model(directory)


def test_a_damaged_tokenizer_is_refused(directory: Path) -> None:
    (directory / "tokenizer.json").write_text('{"version": "1.0"}')
    with pytest.raises(UnfitModel, match="tokenizer"):
        load_model(directory)


def test_auto_names_a_device_of_this_machine() -> None:
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("auto") in ("cpu", "cuda", "mps")
