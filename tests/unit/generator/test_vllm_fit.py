"""What the vllm engine decides without vLLM: which version fits into a running engine, and what it says without it."""

from __future__ import annotations

import errno
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch  # noqa: TID253 - its error is what is translated here

from jupiter.errors import ConfigError
from jupiter.generator.engines import EngineSettings, create_engine, engine_names
from jupiter.generator.engines.vllm.builds import Build, build_of, differences
from jupiter.generator.engines.vllm.canaries import GreedyAnswer, compare
from jupiter.generator.engines.vllm.starting import lacking
from jupiter.generator.engines.vllm.weights import read_weights
from jupiter.generator.engines.vllm.worker import HotSwap
from jupiter.modeling import AttestationError, UnfitModel, load_tokenizer, tokenizer_digest
from tests.tiny_model import make_tiny_model

GIB = 1 << 30


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


@pytest.mark.parametrize("text", ['{"eos_token_id": ', "[2]"])
def test_a_damaged_generation_config_is_no_fault_of_the_program(tmp_path: Path, text: str) -> None:
    directory = make_tiny_model(tmp_path / "model")
    (directory / "generation_config.json").write_text(text)
    with pytest.raises(UnfitModel, match=r"generation_config\.json is not a JSON object"):
        read_weights(directory, model_len_max=1024)


def test_an_engine_that_cannot_come_up_lacks_memory_before_vllm_calls_its_model_bad() -> None:
    room: dict[str, Any] = {"needs_bytes": 80 * GIB, "free_bytes": 90 * GIB, "weights_bytes": 60 * GIB}
    assert lacking(**room, share_bytes=80 * GIB) == ""
    assert "81920 MiB, 71680 MiB are free" in lacking(**room | {"free_bytes": 70 * GIB}, share_bytes=80 * GIB)
    assert "61440 MiB for its weights alone" in lacking(**room, share_bytes=50 * GIB)
    assert lacking(**room, share_bytes=None) == ""  # the cache has a size of its own, and is in what is needed


class Loader(torch.nn.Module):
    """A model that takes what it is given, and knows what that was."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = torch.nn.Linear(2, 2, bias=False), torch.nn.Linear(2, 2, bias=False)

    def load_weights(self, weights: set[str]) -> set[str]:
        return weights


class Worker(HotSwap):
    """vLLM's worker, which reads `weights`, or fails."""

    def __init__(self, weights: set[str], fault: Exception | None = None) -> None:
        model = Loader()
        self.model_runner = SimpleNamespace(get_model=lambda: model)
        self._weights, self._fault = weights, fault

    def reload_weights(self, *, weights_path: str) -> None:
        assert weights_path == "v2"
        if self._fault is not None:
            raise self._fault
        self.model_runner.get_model().load_weights(self._weights)


def test_weights_that_a_reload_leaves_as_they_were_are_named() -> None:
    assert Worker({"up.weight", "down.weight"}).jupiter_reload("v2") is None
    worker = Worker({"up.weight"})
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"not loaded: down\.weight$"):
            worker.jupiter_reload("v2")


@pytest.mark.parametrize(
    ("fault", "lack"),
    [
        (torch.OutOfMemoryError("Tried to allocate 2 GiB"), ("memory", "OutOfMemoryError: Tried to allocate 2 GiB")),
        (MemoryError(), ("memory", "MemoryError: ")),
        (OSError(errno.EIO, "Input/output error"), ("disk", "OSError: [Errno 5] Input/output error")),
    ],
)
def test_what_the_machine_lacks_for_a_reload_is_told_apart_from_what_is_bad(
    fault: Exception, lack: tuple[str, str]
) -> None:
    assert Worker(set(), fault).jupiter_reload("v2") == lack
    for bad in (FileNotFoundError("v2"), ValueError("no such weight")):
        with pytest.raises(type(bad)):
            Worker(set(), bad).jupiter_reload("v2")


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
