"""Is a generated text well formed? Measured against the band of real text, two-sided.

Owns: the measures, the band, the score. Does not know: models.
Measures after DESIGN §9: repetition (distinct 3-grams, distinct words), sentence length, termination, format.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from jupiter.records import Record

__all__ = ["Band", "Measures", "band_of", "health_score", "measure"]

TOLERANCE = 0.15
"""Relative distance outside the band at which a measure's score has fallen to 0.5."""
LOW_QUANTILE, HIGH_QUANTILE = 0.02, 0.98
WORDS_MAX = 60
"""Ratios of distinct words fall with length, so both sides are measured over so many words at most."""


class Measures(Record):
    """What is measured of one text."""

    distinct_words: float
    distinct_trigrams: float
    words_per_sentence: float


class Band(Record):
    """Low and high of each measure over real texts."""

    low: Measures
    high: Measures


def measure(text: str) -> Measures:
    """Measure the first WORDS_MAX words."""
    words = re.findall(r"\S+", text)[:WORDS_MAX]
    folded = [word.lower().strip(".,;:!?()\"'`*") for word in words]
    trigrams = list(zip(folded, folded[1:], folded[2:], strict=False))
    sentences = max(1, sum(word.endswith((".", "!", "?")) for word in words))
    return Measures(
        distinct_words=len(set(folded)) / len(folded) if folded else 0.0,
        distinct_trigrams=len(set(trigrams)) / len(trigrams) if trigrams else 1.0,
        words_per_sentence=len(words) / sentences,
    )


def band_of(texts: Sequence[str]) -> Band:
    """Return the central band of real texts; ValueError when there are none."""
    if not texts:
        raise ValueError("no real text to take the band of generation health from; publish held-out documents")
    measured = [measure(text) for text in texts]

    def at(name: str, quantile: float) -> float:
        ordered = sorted(getattr(m, name) for m in measured)
        return float(ordered[min(len(ordered) - 1, int(quantile * len(ordered)))])

    names = Measures.model_fields
    return Band(
        low=Measures(**{name: at(name, LOW_QUANTILE) for name in names}),
        high=Measures(**{name: at(name, HIGH_QUANTILE) for name in names}),
    )


def _inside(value: float, low: float, high: float) -> float:
    """Return 1 inside the band, falling with the relative distance outside it."""
    distance = max(low - value, value - high, 0.0)
    return 1.0 / (1.0 + distance / (TOLERANCE * max(abs(high), 1e-9)))


def health_score(text: str, *, finished: bool, band: Band) -> float:
    """Return the mean of repetition, shape, termination and format, each 0 to 1; an empty answer scores 0."""
    body = text.strip()
    if len(body.split()) < 2:
        return 0.0
    measures = measure(body)
    repetition = min(
        _inside(measures.distinct_words, band.low.distinct_words, band.high.distinct_words),
        _inside(measures.distinct_trigrams, band.low.distinct_trigrams, band.high.distinct_trigrams),
    )
    shape = _inside(measures.words_per_sentence, band.low.words_per_sentence, band.high.words_per_sentence)
    printable = sum(character.isprintable() or character == "\n" for character in body) / len(body)
    leaks = bool(re.search(r"<\|?\w+\|?>|^(Question|Answer|User|Assistant):", body, re.MULTILINE))
    return (repetition + shape + float(finished) + (0.0 if leaks else float(printable == 1.0))) / 4
