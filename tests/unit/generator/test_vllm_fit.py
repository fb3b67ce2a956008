"""What the vllm engine decides without vLLM: which version fits into a running engine, and what it says without it."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from jupiter.errors import ConfigError
from jupiter.generator.engines import EngineSettings, create_engine, engine_names
from jupiter.generator.engines.vllm.builds import Build, build_of, differences
from jupiter.generator.engines.vllm.canaries import GreedyAnswer, compare
from jupiter.modeling import AttestationError, UnfitModel, load_tokenizer, tokenizer_digest
from tests.tiny_model import make_tiny_model


def build(directory: Path) -> Build:
    return build_of(directory, tokenizer_sha256=tokenizer_digest(load_tokenizer(directory)))


def rewrite_config(**changes: object) -> Callable[[Path], None]:
    def rewrite(directory: Path) -> None:
        path = directory / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return rewrite


def change_tokenizer(directory: Path) -> None:
    path = directory / "tokenizer.json"
    path.write_text(path.read_text().replace('"add_prefix_space": false', '"add_prefix_space": true'))


@pytest.fixture
def running(tmp_path: Path) -> Build:
    return build(make_tiny_model(tmp_path / "running", seed=1))


def test_other_weights_of_the_same_model_fit(running: Build, tmp_path: Path) -> None:
    directory = make_tiny_model(tmp_path / "other", seed=2)
    rewrite_config(transformers_version="9.9", _name_or_path="elsewhere", use_cache=False)(directory)
    assert differences(running, build(directory)) == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (rewrite_config(num_hidden_layers=1), "config.json's num_hidden_layers is 1 instead of 2"),
        (rewrite_config(rope_parameters={"rope_theta": 5.0}), "config.json's rope_parameters is"),
        (rewrite_config(rms_norm_eps=0.1), "config.json's rms_norm_eps is 0.1"),
        (rewrite_config(sliding_window=4), "config.json's sliding_window is 4 instead of None"),
        (rewrite_config(eos_token_id=7), "config.json's eos_token_id is 7"),
        (change_tokenizer, "the tokenizer is another one"),
    ],
)
def test_what_vllm_would_accept_in_silence_does_not_fit(
    running: Build, tmp_path: Path, change: Callable[[Path], None], reason: str
) -> None:
    directory = make_tiny_model(tmp_path / "other", seed=2)
    change(directory)
    (found,) = differences(running, build(directory))
    assert found.startswith(reason)


def test_another_width_and_another_depth_do_not_fit(running: Build, tmp_path: Path) -> None:
    wide = differences(running, build(make_tiny_model(tmp_path / "wide", hidden=64)))
    assert "config.json's hidden_size is 64 instead of 48" in wide
    assert any("other shapes" in reason and "(512, 64) instead of (512, 48)" in reason for reason in wide)
    deep = differences(running, build(make_tiny_model(tmp_path / "deep", layers=3)))
    assert any(reason.startswith("the weights are others: model.layers.2.") and "more" in reason for reason in deep)


def test_a_damaged_header_is_no_build(tmp_path: Path) -> None:
    directory = make_tiny_model(tmp_path / "model")
    weights = directory / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-64])
    with pytest.raises(UnfitModel, match="truncated"):
        build(directory)


def answer(*log_probabilities: float, tokens: tuple[int, ...] = (1, 2)) -> tuple[GreedyAnswer, ...]:
    return (GreedyAnswer(prompt="What?", tokens=tokens, log_probabilities=log_probabilities),)


def test_returning_weights_must_answer_as_they_did() -> None:
    compare(answer(-0.5, -1.0), answer(-0.51, -1.0))
    compare(answer(-0.5, -1.0), answer(-0.5, -9.0, tokens=(7, 2)))  # a tie at the first token: another text follows
    with pytest.raises(AttestationError, match=r"canary 'What\?', token 1: 2 at log-probability -1.1000"):
        compare(answer(-0.5, -1.0), answer(-0.5, -1.1))
    with pytest.raises(AttestationError, match="token 0"):
        compare(answer(-0.5, -1.0), answer(float("nan"), -1.0))


def test_the_engine_is_known_and_says_how_to_install_what_it_needs() -> None:
    assert "vllm" in engine_names()
    assert importlib.util.find_spec("vllm") is None, "this environment is for everything but vLLM"
    with pytest.raises(ConfigError, match=r"jupiter-cycle\[vllm\].*constraints-vllm\.txt"):
        create_engine("vllm", EngineSettings(dtype="bfloat16", device="auto", batch_size=8))
