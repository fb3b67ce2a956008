"""The law of chunking: nothing but blank space is lost, and nothing is too long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupiter.chunks import chunk
from tests.unit.curator.material import document

TEXTS = st.lists(
    st.sampled_from(["word", "a", ". ", " ", "\n", "\n\n", "    indented\n", "x" * 40, "é", ">>> f(1)\n"]),
    min_size=1,
    max_size=60,
).map("".join)


@given(TEXTS, st.integers(1, 80))
def test_passages_hold_all_words_in_order_within_the_limit(text: str, chars_max: int) -> None:
    passages = chunk(document(text), chars_max)
    assert "".join("".join(passage.text.split()) for passage in passages) == "".join(text.split())
    assert all(0 < len(passage.text) <= chars_max for passage in passages)
    assert [passage.index for passage in passages] == list(range(len(passages)))
    assert passages == chunk(document(text), chars_max)


def test_paragraphs_stay_together_while_they_fit() -> None:
    passages = chunk(document("One.\n\nTwo.\n\nThree is longer than the others.\n\nFour."), 34)
    assert [passage.text for passage in passages] == ["One.\n\nTwo.", "Three is longer than the others.", "Four."]
    assert passages[0].title == "json.dumps"


def test_a_short_document_is_one_passage_and_a_long_one_is_cut_between_sentences() -> None:
    assert len(chunk(document("All of it."), 1_200)) == 1
    passages = chunk(document("First sentence here. Second sentence here. Third."), 30)
    assert [passage.text for passage in passages] == ["First sentence here.", "Second sentence here. Third."]


def test_a_limit_below_one_character_is_our_mistake() -> None:
    with pytest.raises(ValueError, match="chars_max"):
        chunk(document(), 0)
