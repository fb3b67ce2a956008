"""Likelihoods and greedy answers against the plain, slow way, with a tiny random model."""

from __future__ import annotations

import random
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


@pytest.mark.parametrize("counts", [(1, 2, 4), (2,)])
def test_rows_of_every_shape_are_answered_in_batches_with_little_padding(
    tiny: tuple[Any, Any], counts: tuple[int, ...]
) -> None:
    model, tokenizer = tiny
    rng = random.Random(3)
    prompts = [" ".join(["word"] * rng.randint(1, 60)) for _ in range(40)]
    options = [tuple(" a" * rng.randint(1, 30) for _ in range(rng.choice(counts))) for _ in prompts]
    found = dict(continuations(model, tokenizer, shared="", prompts=prompts, options=options))
    assert [len(found[index]) for index in range(40)] == [len(of_prompt) for of_prompt in options]
    for index in (0, 17, 39):
        for result, option in zip(found[index], options[index], strict=True):
            log_probability, _ = _plain(model, tokenizer, prompts[index], option)
            assert result.log_probability == pytest.approx(log_probability, abs=1e-3)


def test_an_answer_ends_where_the_stop_appears_whatever_its_neighbours_do(tiny: tuple[Any, Any]) -> None:
    model, tokenizer = tiny
    prompts = [f"Question {n} about the parser:" for n in range(9)]
    whole = dict(generate(model, tokenizer, prompts, new_tokens_max=12, stop="\0never"))
    # A piece of what the model really says: some answers hold it early, some late, some never.
    stop = next(answer.text[3:5] for answer in whole.values() if len(answer.text) > 8)
    stopped = dict(generate(model, tokenizer, prompts, new_tokens_max=12, stop=stop, batch_size=4))
    assert any(stop in answer.text for answer in whole.values())
    for index, answer in whole.items():
        assert stopped[index].text == answer.text.split(stop)[0].strip()
        assert stopped[index].finished == (answer.finished or stop in answer.text)
