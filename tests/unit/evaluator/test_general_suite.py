"""The general suite: its data are sound, and its figures move with what a model can do."""

from __future__ import annotations

import copy
import math
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from jupiter.evaluator.general import (
    SUITE,
    Cloze,
    Passage,
    examine,
    forbidden_texts,
    general_items,
    general_of,
    general_total,
    suite_digest,
)
from jupiter.evaluator.unscored import Unscored
from jupiter.records import digest_of
from tests.tiny_model import make_tiny_model, tiny_texts

CLOZES = [item for item in general_items() if isinstance(item, Cloze)]
PASSAGES = [item for item in general_items() if isinstance(item, Passage)]


@pytest.fixture(scope="module")
def random(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    directory: Path = make_tiny_model(tmp_path_factory.mktemp("tiny"))
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded: Any = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    return loaded.eval(), AutoTokenizer.from_pretrained(directory)


@pytest.fixture(scope="module")
def trained(random: tuple[Any, Any]) -> tuple[Any, Any]:
    """Return the tiny model after some seconds of English, so that there is something to lose."""
    import torch

    model, tokenizer = copy.deepcopy(random[0]), random[1]
    tokens = torch.tensor(tokenizer("\n".join(tiny_texts()), add_special_tokens=False)["input_ids"])
    rows = tokens[: len(tokens) // 64 * 64].view(-1, 64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    torch.manual_seed(1)
    for _ in range(120):
        batch = rows[torch.randint(len(rows), (16,))]
        optimizer.zero_grad()
        model(input_ids=batch, labels=batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.eval(), tokenizer


def _damaged(model: Any, *, by: float) -> Any:
    """Return the model with noise of `by` standard deviations of each matrix added to it."""
    import torch

    torch.manual_seed(2)
    damaged = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in damaged.parameters():
            if parameter.dim() > 1:
                parameter += by * parameter.std() * torch.randn_like(parameter)
    return damaged


def _bits_per_byte(figures: dict[str, float], kind: str) -> float:
    chosen = [item for item in PASSAGES if item.kind == kind]
    return sum(figures[i.item_id] * i.scored_bytes for i in chosen) / sum(i.scored_bytes for i in chosen)


def _ignore(_: int) -> None:
    return


def test_ids_are_unique_and_the_sizes_are_those_promised() -> None:
    assert len({item.item_id for item in general_items()}) == general_total() == 168
    assert Counter(item.topic for item in CLOZES) == dict.fromkeys(
        ("science", "geography", "history", "everyday", "language", "arithmetic"), 20
    )
    assert Counter(item.kind for item in PASSAGES) == {"text": 24, "code": 24}


@pytest.mark.parametrize("item", CLOZES, ids=lambda item: item.id)
def test_a_cloze_has_four_different_endings_of_like_length(item: Cloze) -> None:
    endings = [item.right, *item.wrong]
    lengths = sorted(map(len, endings))
    assert len({ending.lower() for ending in endings}) == 4
    assert lengths[-1] <= max(2 * lengths[0], lengths[0] + 3)
    assert all(text == text.strip() and "  " not in text for text in (item.start, *endings))
    assert item.right.lower() not in item.start.lower().split(), "the beginning gives the ending away"
    assert item.options[0] == f" {item.right}"


def test_length_alone_tells_little_about_the_right_ending() -> None:
    longest = sum(len(item.right) > max(map(len, item.wrong)) for item in CLOZES)
    shortest = sum(len(item.right) < min(map(len, item.wrong)) for item in CLOZES)
    assert longest <= len(CLOZES) * 0.3
    assert shortest <= len(CLOZES) * 0.3


def test_nothing_is_asked_twice_nor_about_the_domain() -> None:
    starts = [item.start for item in CLOZES]
    assert len(set(starts)) == len(starts)
    texts = [item.text for item in PASSAGES]
    assert len(set(texts)) == len(texts)
    words = {word for item in CLOZES for word in item.forbidden.lower().split()}
    assert not words & {"python", "module", "import"}
    assert not any("import " in item.text for item in PASSAGES if item.kind == "code")


@pytest.mark.parametrize("item", [i for i in PASSAGES if i.kind == "text"], ids=lambda item: item.id)
def test_a_passage_is_prose_of_the_promised_length(item: Passage) -> None:
    assert 40 <= len(item.text.split()) <= 90
    assert item.text.rstrip('"').endswith((".", "?", "!"))
    assert "".join(item.parts) == item.text
    assert item.scored_bytes == len(item.text.encode()) - len(item.text.split()[0].encode())


@pytest.mark.parametrize("item", [i for i in PASSAGES if i.kind == "code"], ids=lambda item: item.id)
def test_the_code_is_right(item: Passage) -> None:
    scope: dict[str, Any] = {}
    exec(item.text, scope)  # noqa: S102 — our own file
    assert item.checks
    for check in item.checks:
        assert eval(check, scope), check  # noqa: S307 — our own file


def test_the_digest_is_that_of_the_files_and_changes_with_an_item() -> None:
    dumped = [item.model_dump(mode="json", exclude={"checks"}) for item in general_items()]
    assert suite_digest() == digest_of(SUITE, dumped)
    dumped[0]["right"] = "something else"
    assert suite_digest() != digest_of(SUITE, dumped)
    # Another content needs another name: raise SUITE together with this digest.
    assert (SUITE, suite_digest()[:12]) == ("jupiter-general 1", "7ce6468bcd50")


def test_all_its_texts_are_forbidden_to_train_on() -> None:
    forbidden = [text for texts in forbidden_texts() for text in texts]
    assert len(forbidden) == general_total()
    assert "The capital of France is Paris" in forbidden
    assert {item.text for item in PASSAGES} <= set(forbidden)


def test_a_model_gets_a_finite_figure_for_every_item(random: tuple[Any, Any]) -> None:
    done: list[int] = []
    figures = examine(*random, done.append)
    assert figures.keys() == {item.item_id for item in general_items()}
    assert {figures[item.item_id] for item in CLOZES} == {0.0, 1.0}
    assert all(0 < figures[item.item_id] < 100 for item in PASSAGES)
    assert sum(done) == general_total()
    # Chance is 1 in 4: a random model is neither above it nor below it by much.
    assert 0.1 < sum(figures[item.item_id] for item in CLOZES) / len(CLOZES) < 0.4


def test_bits_per_byte_are_those_of_one_whole_pass(random: tuple[Any, Any]) -> None:
    import torch

    model, tokenizer = random
    figures = examine(model, tokenizer, _ignore)
    for item in (PASSAGES[0], PASSAGES[-1]):
        first, rest = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in item.parts)
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([first + rest])).logits[0, len(first) - 1 : -1].float()
        nats = -torch.log_softmax(logits, -1).gather(1, torch.tensor(rest)[:, None]).sum().item()
        assert figures[item.item_id] == pytest.approx(nats / math.log(2) / item.scored_bytes, rel=1e-4)


def test_a_model_that_learned_english_needs_fewer_bits_and_a_damaged_one_more(
    random: tuple[Any, Any], trained: tuple[Any, Any]
) -> None:
    model, tokenizer = trained
    ladder = [model, _damaged(model, by=0.3), _damaged(model, by=1.0)]
    figures = [examine(one, tokenizer, _ignore) for one in ladder]
    for kind in ("text", "code"):
        bits = [_bits_per_byte(found, kind) for found in figures]
        assert all(after > 1.02 * before for before, after in pairwise(bits)), (kind, bits)
        assert bits[0] < _bits_per_byte(examine(*random, _ignore), kind)


def test_a_begin_token_is_given_where_the_tokenizer_gives_it(random: tuple[Any, Any]) -> None:
    from tokenizers.processors import TemplateProcessing

    model, plain = random
    begin = copy.deepcopy(plain)
    token = begin.bos_token
    begin.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{token} $A", special_tokens=[(token, begin.bos_token_id)]
    )
    without = copy.deepcopy(plain)
    without.bos_token = None
    assert begin("The")["input_ids"][0] == begin.bos_token_id != plain("The")["input_ids"][0]
    bare = examine(model, plain, _ignore)
    assert examine(model, without, _ignore) == bare
    assert examine(model, begin, _ignore) != bare


@pytest.mark.parametrize("broken", ["all", "embedding row"])
def test_a_model_without_numbers_is_unscored(random: tuple[Any, Any], broken: str) -> None:
    import torch

    model, tokenizer = copy.deepcopy(random[0]), random[1]
    with torch.no_grad():
        weight = model.get_input_embeddings().weight
        (weight if broken == "all" else weight[tokenizer("e")["input_ids"][0]]).fill_(math.nan)
    with pytest.raises(Unscored, match="no usable numbers"):
        examine(model, tokenizer, _ignore)


def test_a_model_that_thinks_everything_equally_likely_knows_nothing(random: tuple[Any, Any]) -> None:
    """Every token costs the same; where endings have equally many tokens per byte, the first is no better."""
    import torch

    model, tokenizer = copy.deepcopy(random[0]), random[1]
    with torch.no_grad():
        model.get_input_embeddings().weight.fill_(1.0)
    figures = examine(model, tokenizer, _ignore)
    tied = [
        item
        for item in CLOZES
        if len({len(tokenizer(text)["input_ids"]) / len(text.encode()) for text in item.options}) == 1
    ]
    assert tied
    assert all(figures[item.item_id] == 0 for item in tied)


def test_an_interruption_passes_through(random: tuple[Any, Any]) -> None:
    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        examine(*random, stop)


def _figures(**changed: float) -> dict[str, float]:
    return {item.item_id: 1.0 for item in general_items()} | changed


def test_the_report_holds_both_models_item_by_item() -> None:
    general = general_of(_figures(**{"text-bread": 1.5}), _figures())
    assert (general.suite, general.suite_digest, len(general.items)) == (SUITE, suite_digest(), general_total())
    bread = next(item for item in general.items if item.item_id == "text-bread")
    assert (bread.kind, bread.candidate, bread.generator) == ("text", 1.5, 1.0)
    assert bread.bytes > 200
    assert Counter(item.kind for item in general.items) == {"knowledge": 120, "text": 24, "code": 24}


@pytest.mark.parametrize("who", ["candidate", "generator"])
@pytest.mark.parametrize("change", ["one is missing", "one is unknown"])
def test_other_items_than_the_suites_are_refused(who: str, change: str) -> None:
    odd = _figures(**{"text-unknown": 1.0})
    if change == "one is missing":
        odd = _figures()
        del odd["text-bread"]
    candidate, generator = (odd, _figures()) if who == "candidate" else (_figures(), odd)
    with pytest.raises(Unscored, match=f"the {who} was scored on other items"):
        general_of(candidate, generator)
