"""Likelihoods and greedy answers against the plain, slow way, with a tiny random model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jupiter.evaluator.likelihood import continuations, generate
from tests.tiny_model import make_tiny_model

SHARED = "Name: walk\nFound in: os\n\n"
PROMPTS = (
    "Name: dump\nFound in:",
    "Short:",
    "A much longer question about the parser of arguments and its help\nAnswer:",
)
OPTIONS = ((" json\n", " os"), (" a", " something else entirely"), (" argparse", " pathlib\n"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    directory: Path = make_tiny_model(tmp_path_factory.mktemp("tiny"))
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded: Any = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    model = loaded.eval()
    return model, AutoTokenizer.from_pretrained(directory)


def _plain(model: Any, tokenizer: Any, prompt: str, option: str) -> tuple[float, bool]:
    """Return the log-probability and greediness of one continuation by one whole forward pass."""
    import torch

    start, end = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, option))
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([start + end])).logits[0, len(start) - 1 : -1]
    target = torch.tensor(end)
    log_probability = torch.log_softmax(logits.float(), -1).gather(1, target[:, None]).sum()
    return float(log_probability), bool((logits.argmax(-1) == target).all())


@pytest.mark.parametrize("shared", ["", SHARED])
def test_batched_likelihoods_are_those_of_single_passes(tiny: tuple[Any, Any], shared: str) -> None:
    model, tokenizer = tiny
    found = dict(continuations(model, tokenizer, shared=shared, prompts=PROMPTS, options=OPTIONS))
    # The shared text is tokenised by itself, so the plain way concatenates tokens likewise.
    for index, (prompt, options) in enumerate(zip(PROMPTS, OPTIONS, strict=True)):
        for result, option in zip(found[index], options, strict=True):
            tokens_apart = shared == "" or tokenizer(shared + prompt)["input_ids"] == (
                tokenizer(shared)["input_ids"] + tokenizer(prompt)["input_ids"]
            )
            assert tokens_apart
            log_probability, greedy = _plain(model, tokenizer, shared + prompt, option)
            assert result.log_probability == pytest.approx(log_probability, abs=1e-3)
            assert result.greedy == greedy
            assert result.bytes == len(option)


def test_what_the_model_generates_is_greedy(tiny: tuple[Any, Any]) -> None:
    model, tokenizer = tiny
    answers = dict(generate(model, tokenizer, PROMPTS, new_tokens_max=5, stop="\n\n", batch_size=2))
    assert set(answers) == {0, 1, 2}
    for index, prompt in enumerate(PROMPTS):
        ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
        plain = model.generate(**ids, max_new_tokens=5, do_sample=False)[0, ids["input_ids"].shape[1] :].tolist()
        end = plain.index(tokenizer.eos_token_id) if tokenizer.eos_token_id in plain else None
        expected = tokenizer.decode(plain[:end]).lstrip().split("\n\n")[0].strip()
        assert answers[index].text == expected


def test_batches_that_yield_early_lose_nothing(tiny: tuple[Any, Any]) -> None:
    model, tokenizer = tiny
    many = [f"Question {n}:" for n in range(40)]
    found = dict(continuations(model, tokenizer, shared="", prompts=many, options=[(" yes", " no")] * 40))
    assert sorted(found) == list(range(40))
