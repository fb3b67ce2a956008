"""Near-duplicates of short and long texts, and the signature file."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupiter.overlap.signatures import NearDuplicateIndex, bands, own_size, pack, sizes_for, sketch, unpack

VOCABULARY = [f"word{number}" for number in range(400)]


def index_of(*texts: list[str], threshold: float = 0.85) -> NearDuplicateIndex:
    index = NearDuplicateIndex(threshold=threshold)
    for number, (words, signatures) in enumerate(zip(texts, sketch(texts), strict=True)):
        index.add(str(number), signatures[own_size(len(words))])
    return index


@pytest.mark.parametrize("length", [27, 29, 30, 45, 59, 60, 66, 120, 400])
def test_one_changed_word_at_the_end_is_a_near_duplicate_at_every_length(length: int) -> None:
    words = VOCABULARY[:length]
    found = index_of(words).find(sketch([[*words[:-1], "other"]])[0])
    assert found is not None
    assert found[1] >= 0.85


@pytest.mark.parametrize("length", [29, 30, 59, 60])
def test_a_duplicate_that_is_one_word_longer_is_found_across_a_boundary(length: int) -> None:
    words = VOCABULARY[:length]
    assert index_of(words).find(sketch([VOCABULARY[: length + 1]])[0]) is not None
    assert index_of(VOCABULARY[: length + 1]).find(sketch([words])[0]) is not None


def test_different_texts_and_reordered_words_are_not() -> None:
    words = VOCABULARY[:20]
    index = index_of(words)
    assert index.find(sketch([VOCABULARY[100:120]])[0]) is None
    assert index.find(sketch([list(reversed(words))])[0]) is None


@given(st.integers(0, 500))
def test_the_own_size_is_looked_up_first(length: int) -> None:
    sizes = sizes_for(length)
    assert sizes[0] == own_size(length)
    assert len(set(sizes)) == len(sizes) <= 2


@given(st.floats(0.3, 0.99))
def test_bands_propose_nearly_all_pairs_at_the_threshold(threshold: float) -> None:
    count, rows = bands(threshold)
    assert count * rows <= 128
    assert 1 - (1 - threshold**rows) ** count >= 0.99


def test_signatures_survive_the_file_and_equal_input_gives_equal_bytes() -> None:
    first, second = (signatures[2] for signatures in sketch([VOCABULARY[:9], VOCABULARY[5:20]]))
    data = pack({"b" * 64: second, "a" * 64: first})
    assert data == pack({"a" * 64: first, "b" * 64: second})
    back = unpack(data)
    assert back["a" * 64].jaccard(first) == 1
    assert back["b" * 64].jaccard(sketch([VOCABULARY[5:20]])[0][2]) == 1
    assert unpack(pack({})) == {}
    with pytest.raises(ValueError, match="signature"):
        unpack(b"no archive")
