"""Health of generations: inside the band of real text is well, outside it on either side is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupiter.evaluator.health import Band, band_of, health_score, measure

REAL = [
    "Return the number of bytes written. The buffer must be flushed before the file is closed, or data is lost.",
    "This class holds the settings of one session. Settings may be changed at any time while the session is open.",
    "Stop.",
    "Opening, closing, reading, writing and seeking all raise errors after detaching.",
    "A lock that is held by a dead process is released after a timeout. Waiting callers are then woken in order.",
] * 20
GOOD = "The function opens a file and returns a stream. Closing the stream releases the file for other programs."


@pytest.fixture
def band() -> Band:
    return band_of(REAL)


def test_real_text_is_healthy(band: Band) -> None:
    assert health_score(REAL[0], finished=True, band=band) == pytest.approx(1)
    assert health_score(GOOD, finished=True, band=band) > 0.85


@pytest.mark.parametrize(
    ("text", "finished"),
    [
        (GOOD, False),
        ("the file is the file is the file is the file is the file is the file", True),
        (f"{GOOD}\nQuestion: What else?", True),
        (f"{GOOD} <|im_end|>", True),
    ],
    ids=["endless", "repeating", "going on to ask", "leaking a marker"],
)
def test_ill_formed_answers_lose(text: str, finished: bool, band: Band) -> None:
    assert health_score(text, finished=finished, band=band) < health_score(GOOD, finished=True, band=band) - 0.1


def test_an_empty_answer_scores_nothing(band: Band) -> None:
    assert health_score("  ", finished=True, band=band) == 0


@given(st.text(max_size=300), st.booleans())
def test_scores_stay_in_range(text: str, finished: bool) -> None:
    assert 0 <= health_score(text, finished=finished, band=band_of(REAL)) <= 1


def test_measures_of_a_known_text() -> None:
    measures = measure("One two one. Two one two!")
    assert measures.distinct_words == pytest.approx(2 / 6)
    assert measures.distinct_trigrams == pytest.approx(2 / 4)
    assert measures.words_per_sentence == 3


def test_no_real_text_is_an_error() -> None:
    with pytest.raises(ValueError, match="publish held-out documents"):
        band_of([])
