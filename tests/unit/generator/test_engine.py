"""The transformers engine: batching changes neither greedy output nor draws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch  # noqa: TID253 - its error is what is translated here

from jupiter.errors import ConfigError
from jupiter.generator.engines import EngineSettings, Prompt, create_engine, engine_names
from jupiter.generator.engines.transformers import TransformersEngine
from jupiter.modeling import GOLDEN_FILE, NoRoom, load_model, record_golden
from jupiter.records import Sampling, canonical_json
from tests.tiny_model import make_tiny_model

GREEDY = Sampling(temperature=0, max_new_tokens=12)
RANDOM = Sampling(temperature=1.0, top_p=0.95, max_new_tokens=12)
TEXTS = (
    "Return the length.",
    "Return the number of characters in the text, which may be of any length at all.",
    "Parse arguments.",
    "a",
    "Return the lengths of all the lines.",
)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return make_tiny_model(tmp_path / "model")


def engine(*, batch_size: int = 64) -> TransformersEngine:
    """In float32, where the shape of a batch moves a probability by a millionth and not by a thousandth."""
    return TransformersEngine(EngineSettings(dtype="float32", device="cpu", batch_size=batch_size))


def texts_of(directory: Path, prompts: list[Prompt], sampling: Sampling, *, batch_size: int = 64) -> list[str]:
    made = engine(batch_size=batch_size)
    completions = made.generate(made.load(directory), prompts, sampling=sampling, progress=lambda *_: None)
    return [completion.text for completion in completions]


def test_greedy_output_is_that_of_transformers_own_loop(directory: Path) -> None:
    model, tokenizer = load_model(directory, dtype="float32")
    expected = []
    for text in TEXTS:
        ids = tokenizer(text, return_tensors="pt")
        output: Any = model.generate(**ids, max_new_tokens=12, do_sample=False, pad_token_id=tokenizer.pad_token_id)
        expected.append(tokenizer.decode(output[0, ids["input_ids"].shape[1] :], skip_special_tokens=True))
    prompts = [Prompt(text=text, seed=0) for text in TEXTS]
    assert texts_of(directory, prompts, GREEDY) == expected


@pytest.mark.parametrize("template", ["", "shared"])
def test_a_row_draws_the_same_alone_in_small_batches_and_in_one(directory: Path, template: str) -> None:
    prompts = [
        Prompt(text=f"Example: one.\n\n{text}", seed=7 + number, template=template and f"shared{number % 2}")
        for number, text in enumerate(TEXTS)
    ]
    together = texts_of(directory, prompts, RANDOM)
    assert texts_of(directory, prompts, RANDOM) == together
    assert texts_of(directory, prompts, RANDOM, batch_size=2) == together
    assert [texts_of(directory, [prompt], RANDOM)[0] for prompt in prompts] == together


def test_another_seed_gives_another_text(directory: Path) -> None:
    prompts = [Prompt(text=TEXTS[0], seed=seed) for seed in range(4)]
    assert len(set(texts_of(directory, prompts, RANDOM))) == 4


def test_a_stop_string_ends_the_completion_before_it(directory: Path) -> None:
    made = engine()
    handle = made.load(directory)
    (whole,) = made.generate(handle, [Prompt(text=TEXTS[0], seed=1)], sampling=RANDOM, progress=lambda *_: None)
    assert whole.finish_reason == "length"
    stop = whole.text[6:8]
    (cut,) = made.generate(
        handle, [Prompt(text=TEXTS[0], seed=1, stop=(stop,))], sampling=RANDOM, progress=lambda *_: None
    )
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert cut.finish_reason == "stop"
    assert cut.tokens <= whole.tokens


def test_a_chat_prompt_is_put_into_the_models_template(directory: Path) -> None:
    made = engine()
    (completion,) = made.generate(
        made.load(directory), [Prompt(text="hi", seed=1, chat=True)], sampling=RANDOM, progress=lambda *_: None
    )
    assert completion.prompt == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


def test_progress_counts_every_sample_and_token(directory: Path) -> None:
    made = engine(batch_size=2)
    seen: list[tuple[int, int]] = []
    prompts = [Prompt(text=text, seed=number) for number, text in enumerate(TEXTS)]
    completions = made.generate(
        made.load(directory), prompts, sampling=RANDOM, progress=lambda samples, tokens: seen.append((samples, tokens))
    )
    assert sum(samples for samples, _ in seen) == len(TEXTS)
    assert sum(tokens for _, tokens in seen) == sum(completion.tokens for completion in completions)


def test_progress_may_end_generation(directory: Path) -> None:
    made = engine()

    def stop(samples: int, tokens: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made.generate(made.load(directory), [Prompt(text="a", seed=1)], sampling=RANDOM, progress=stop)


def test_a_gpu_that_runs_out_of_memory_says_nothing_about_the_version(directory: Path) -> None:
    (directory / GOLDEN_FILE).write_bytes(canonical_json(record_golden(directory, dtype="float32")))
    made = engine()
    handle = made.load(directory)

    def allocate(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    handle.model.register_forward_pre_hook(allocate)
    with pytest.raises(NoRoom, match="Tried to allocate 2 GiB"):
        made.attest(handle, directory, tolerance=0.05)


def test_no_prompts_give_no_completions(directory: Path) -> None:
    assert texts_of(directory, [], RANDOM) == []


def test_an_unknown_engine_is_named_with_those_that_exist() -> None:
    assert "transformers" in engine_names()
    settings = EngineSettings(dtype="float32", device="cpu", batch_size=1)
    with pytest.raises(ConfigError, match=r"this installation has: .*transformers"):
        create_engine("magic", settings)
    with pytest.raises(ConfigError, match="cannot be imported"):
        create_engine("no_such_package.engine", settings)
