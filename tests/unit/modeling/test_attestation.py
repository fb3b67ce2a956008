"""Only the model that was recorded is attested; each kind of difference is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from jupiter.modeling import (
    AttestationError,
    Golden,
    UnfitModel,
    attest,
    golden,
    load_model,
    read_golden,
    record_golden,
)
from jupiter.modeling.golden import file_digests
from jupiter.records import canonical_json
from tests.tiny_model import make_tiny_model

TOLERANCE = 0.25


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return make_tiny_model(tmp_path / "model")


@pytest.fixture
def recorded(directory: Path) -> Golden:
    return record_golden(directory)


def attest_directory(directory: Path, recorded: Golden) -> None:
    model, tokenizer = load_model(directory)
    attest(model, tokenizer, directory, recorded, TOLERANCE)


def as_if_recorded_with(recorded: Golden, directory: Path) -> Golden:
    """Take over the files' digests, so that the checks behind the first one are reached."""
    return recorded.model_copy(update={"files": file_digests(directory)})


def test_the_recorded_model_is_attested(directory: Path, recorded: Golden) -> None:
    attest_directory(directory, recorded)


def test_on_one_machine_the_log_probabilities_are_equal(directory: Path, recorded: Golden) -> None:
    assert record_golden(directory) == recorded


def test_a_record_survives_its_file(directory: Path, recorded: Golden) -> None:
    (directory / "golden.json").write_bytes(canonical_json(recorded))
    assert read_golden(directory / "golden.json") == recorded
    attest_directory(directory, recorded)


def test_a_newer_record_is_read_unless_its_meaning_is_another(directory: Path, recorded: Golden) -> None:
    body = json.loads(canonical_json(recorded))
    body["outputs"][0]["entropy"] = 1.5
    (directory / "golden.json").write_text(json.dumps({**body, "attention": "eager"}))
    attest_directory(directory, read_golden(directory / "golden.json"))
    (directory / "golden.json").write_text(json.dumps({**body, "schema_version": 2}))
    with pytest.raises(UnfitModel, match="schema_version"):
        read_golden(directory / "golden.json")


def test_a_missing_or_damaged_record_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnfitModel, match="is missing"):
        read_golden(tmp_path / "golden.json")
    (tmp_path / "golden.json").write_text("{}")
    with pytest.raises(UnfitModel, match="not a golden record"):
        read_golden(tmp_path / "golden.json")


def test_one_flipped_bit_of_the_weights_fails_the_digest(directory: Path, recorded: Golden) -> None:
    weights = bytearray((directory / "model.safetensors").read_bytes())
    weights[-1000] ^= 1
    (directory / "model.safetensors").write_bytes(weights)
    with pytest.raises(AttestationError, match=r"model\.safetensors .* has sha256"):
        attest_directory(directory, recorded)


def test_a_file_that_came_later_fails(directory: Path, recorded: Golden) -> None:
    (directory / "added_later.json").write_text("{}")
    with pytest.raises(AttestationError, match="not recorded"):
        attest_directory(directory, recorded)


def test_other_weights_fail_the_golden_outputs(tmp_path: Path, recorded: Golden) -> None:
    other = make_tiny_model(tmp_path / "other", seed=1)
    with pytest.raises(AttestationError, match="log-probability"):
        attest_directory(other, as_if_recorded_with(recorded, other))


def test_one_layer_of_another_model_fails_the_golden_outputs(directory: Path, tmp_path: Path, recorded: Golden) -> None:
    other = load_file(make_tiny_model(tmp_path / "other", seed=1) / "model.safetensors")
    weights = load_file(directory / "model.safetensors")
    weights["model.layers.1.mlp.down_proj.weight"] = other["model.layers.1.mlp.down_proj.weight"]
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(AttestationError, match="golden prompt"):
        attest_directory(directory, as_if_recorded_with(recorded, directory))


def test_nan_weights_fail_even_where_no_golden_prompt_meets_them(directory: Path, recorded: Golden) -> None:
    weights = load_file(directory / "model.safetensors")
    weights["model.embed_tokens.weight"][0, 0] = float("nan")
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(AttestationError, match="not finite"):
        attest_directory(directory, as_if_recorded_with(recorded, directory))


def test_a_model_of_nans_cannot_be_recorded(directory: Path) -> None:
    model, tokenizer = load_model(directory)
    model.model.norm.weight.data.fill_(float("nan"))
    with pytest.raises(UnfitModel, match="not finite"):
        golden(model, tokenizer, directory=directory)


def test_another_architecture_fails(tmp_path: Path, recorded: Golden) -> None:
    other = make_tiny_model(tmp_path / "other", layers=3)
    with pytest.raises(AttestationError, match="parameters"):
        attest_directory(other, as_if_recorded_with(recorded, other))


def test_another_tokenizer_fails(directory: Path, recorded: Golden) -> None:
    path = directory / "tokenizer.json"
    path.write_text(path.read_text().replace('"add_prefix_space": false', '"add_prefix_space": true'))
    with pytest.raises(AttestationError, match="tokenizer is not the recorded"):
        attest_directory(directory, as_if_recorded_with(recorded, directory))


def test_another_chat_template_fails(directory: Path, recorded: Golden) -> None:
    (directory / "chat_template.jinja").write_text("{{ messages }}")
    with pytest.raises(AttestationError, match="chat template"):
        attest_directory(directory, as_if_recorded_with(recorded, directory))


def test_resaving_the_tokenizer_keeps_its_identity(directory: Path, recorded: Golden, tmp_path: Path) -> None:
    _, tokenizer = load_model(directory)
    tokenizer(["a", "longer text"], padding=True)
    copied = tmp_path / "copied"
    shutil.copytree(directory, copied)
    tokenizer.save_pretrained(copied)
    attest_directory(copied, as_if_recorded_with(recorded, copied))
