"""How samples become tokens."""

from __future__ import annotations

from typing import Any

import pytest

from jupiter.modeling import load_tokenizer
from jupiter.trainer.formats import AS_GENERATED, FORMATS, Encoder
from tests.tiny_model import make_tiny_model
from tests.unit.trainer.material import sample


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_tokenizer(make_tiny_model(tmp_path_factory.mktemp("tiny")))


def encoder(tokenizer: Any, name: str = "question", *, length: int = 128) -> Encoder:
    return Encoder(tokenizer, sample_format=name, sequence_length=length)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("question", "Question: What is it?\nAnswer: It is json.<|im_end|>"),
        ("chat", "<|im_start|>user\nWhat is it?<|im_end|>\n<|im_start|>assistant\nIt is json.<|im_end|>"),
        ("plain", "What is it?\nIt is json.<|im_end|>"),
    ],
)
def test_each_format_is_the_text_it_says_and_learns_the_answer(tokenizer: Any, name: str, text: str) -> None:
    made = sample(1, instruction=" What is it? ", response="It is json.\n", loss_on="response")
    (encoded,) = encoder(tokenizer, name).encode([made]).samples
    assert tokenizer.decode(encoded.tokens) == text
    assert tokenizer.decode(encoded.tokens[encoded.learned_from :]).strip() == "It is json.<|im_end|>"


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_the_prompt_ends_as_the_generator_will_meet_it(tokenizer: Any, name: str) -> None:
    made = sample(1, instruction="What is it?", response="It is json.", loss_on="response")
    (encoded,) = encoder(tokenizer, name).encode([made]).samples
    frame = FORMATS[name]("What is it?", tokenizer)
    alone = tokenizer(frame.before, add_special_tokens=name != "chat")["input_ids"]
    assert list(encoded.tokens[: encoded.learned_from]) == alone


def test_loss_on_all_learns_the_question_too(tokenizer: Any) -> None:
    (encoded,) = encoder(tokenizer).encode([sample(1, loss_on="all")]).samples
    assert encoded.learned_from == 1


def test_a_long_document_is_cut_into_pieces_that_hold_every_token_once(tokenizer: Any) -> None:
    text = "The json module reads and writes text. " * 30
    made = encoder(tokenizer, length=50).encode([sample(1, instruction=None, response=text)])
    assert [piece.piece for piece in made.samples] == list(range(len(made.samples)))
    assert all(len(piece.tokens) <= 50 for piece in made.samples)
    tokens = [token for piece in made.samples for token in piece.tokens]
    assert tokenizer.decode(tokens) == text.strip() + "<|im_end|>"


def test_a_long_answer_loses_its_end_and_the_token_that_ends_it(tokenizer: Any) -> None:
    made = encoder(tokenizer, length=40).encode([sample(1, response="one two three " * 40)])
    assert made.counts == {"truncated": 1}
    assert len(made.samples[0].tokens) == 40
    assert tokenizer.eos_token_id not in made.samples[0].tokens


def test_a_prompt_that_leaves_no_room_is_counted_and_left_out(tokenizer: Any) -> None:
    made = encoder(tokenizer, length=16).encode([sample(1, instruction="why " * 60)])
    assert (made.samples, made.counts) == ((), {"prompt_too_long": 1})


def generated(number: int = 1, **changes: Any) -> Any:
    fields = {"own_prompt": "Sentence: Read text.\nSame meaning, other words:", "completion": " Takes text in."}
    return sample(number, **fields | changes)


def test_a_drawn_sample_is_learned_as_it_was_generated_too(tokenizer: Any) -> None:
    made = Encoder(tokenizer, sample_format="question", sequence_length=128, as_generated_share=1.0).encode(
        [generated()]
    )
    answered, written = made.samples
    assert tokenizer.decode(written.tokens) == "Sentence: Read text.\nSame meaning, other words: Takes text in.\n\n"
    assert tokenizer.decode(written.tokens[written.learned_from :]) == " Takes text in.\n\n"
    assert (answered.piece, written.piece, made.counts) == (0, AS_GENERATED, {"as_generated": 1})


def test_the_draw_is_of_the_share_asked_for_and_the_same_each_time(tokenizer: Any) -> None:
    samples = [generated(number) for number in range(600)]
    few = Encoder(tokenizer, sample_format="plain", sequence_length=128, as_generated_share=0.1)
    drawn = [one.sample_id for one in few.encode(samples).samples if one.piece == AS_GENERATED]
    assert 30 <= len(drawn) <= 95
    assert drawn == [one.sample_id for one in few.encode(samples).samples if one.piece == AS_GENERATED]


@pytest.mark.parametrize("changes", [{"own_prompt": None}, {"completion": None}, {"completion": ""}])
def test_what_was_not_generated_has_no_second_form(tokenizer: Any, changes: dict[str, Any]) -> None:
    whole = Encoder(tokenizer, sample_format="plain", sequence_length=128, as_generated_share=1.0)
    assert [one.piece for one in whole.encode([generated(**changes)]).samples] == [0]


def test_a_second_form_that_is_too_long_is_counted_and_left_out(tokenizer: Any) -> None:
    whole = Encoder(tokenizer, sample_format="plain", sequence_length=64, as_generated_share=1.0)
    made = whole.encode([generated(own_prompt="Sentence: " + "word " * 80)])
    assert ([one.piece for one in made.samples], made.counts) == ([0], {"as_generated_too_long": 1})
