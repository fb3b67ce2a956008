"""Cheap figures of a shard's variety, beside those of the real data: a record, not a rule (the breaker comes later).

Owns: the figures. Does not know: bounds. Measured for the design: synthetic text can beat real text on distinct-n and
compression while its vocabulary halves, so the coverage of the real vocabulary's rare words is the one to watch.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence

from jupiter.curator import wording

__all__ = ["coverage", "variety"]

# Name -> (least, one past the most) passages of the real data that a word stands in.
_BUCKETS = {"once": (1, 2), "2_to_4": (2, 5), "5_to_19": (5, 20), "20_or_more": (20, 1 << 62)}


def variety(texts: Sequence[str]) -> dict[str, float]:
    """Return distinct-1/2/4 (distinct n-grams / n-grams), the zlib compression ratio and the mean length in words.

    All depend on how much text there is: compare shards of like size, or with the real part's figures beside them.
    """
    tokenised = [wording.words(text) for text in texts]
    joined = "\n".join(texts).encode()
    figures = {f"distinct_{n}": _distinct(tokenised, n) for n in (1, 2, 4)}
    figures["compression_ratio"] = round(len(joined) / len(zlib.compress(joined, 9)), 4) if joined else 0.0
    figures["words_mean"] = round(sum(map(len, tokenised)) / max(1, len(tokenised)), 2)
    return figures


def _distinct(tokenised: Sequence[tuple[str, ...]], n: int) -> float:
    grams = [gram for tokens in tokenised for gram in wording.ngrams(tokens, n)]
    return round(len(set(grams)) / len(grams), 4) if grams else 0.0


def coverage(texts: Sequence[str], passages: Sequence[str], vocabulary: Counter[str]) -> Mapping[str, float]:
    """Return which share of the passages' words the texts use, by how rare the words are in the real data.

    `vocabulary` counts the real passages that hold a word. A bucket without words is left out.
    """
    offered = {word for passage in passages for word in wording.content_words(passage)}
    used = {word for text in texts for word in wording.content_words(text)}
    shares: dict[str, float] = {}
    for name, (least, end) in _BUCKETS.items():
        bucket = {word for word in offered if least <= vocabulary[word] < end}
        if bucket:
            shares[name] = round(len(bucket & used) / len(bucket), 4)
    return shares
