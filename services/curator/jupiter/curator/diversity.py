"""How varied a batch is, each figure beside the real data's own on a sample of like size (DESIGN §6, §9).

Owns: the figures, the draws of real text they are compared with, and what resampling makes of both.
Does not know: bounds, earlier shards, or what a fall sets off (the controller's breaker).

Reference-free figures mislead: synthetic text can beat real text on distinct-n and compression while its vocabulary
halves (measured for the design). So every figure stands beside the real data's. Distinct-n, compression and nearest
neighbours depend on how much text there is: real texts are drawn without repetition until they hold as many words, and
the spread over many such draws says how far the figure of real text itself wanders. The draws follow from a seed (the
shard's id), so a shard that is made again gets the same figures.

The likelihood of held-out real text in its rarest decile (DESIGN §9) needs a model and is not measured. Nothing here
loads one.
"""

from __future__ import annotations

import random
import statistics
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from jupiter.curator.candidate import Candidate
from jupiter.curator.corpus import Corpus, RealSample
from jupiter.overlap import wording
from jupiter.overlap.forbidden import training_text
from jupiter.overlap.signatures import NearDuplicateIndex

__all__ = ["COVERAGE_BUCKETS", "FIGURES", "Measured", "coverage", "measure", "repeats", "variety"]

FIGURES = ("distinct_1", "distinct_2", "distinct_4", "compression_ratio", "self_similarity", "words_mean")
COVERAGE_BUCKETS: Mapping[str, tuple[int, int]] = {
    "once": (1, 2),
    "2_to_4": (2, 5),
    "5_to_19": (5, 20),
    "20_or_more": (20, 1 << 62),
}
"""Name -> (least, one past the most) passages of the real data that a word stands in."""
DRAWS = 32
"""Resamples of the real texts: their standard deviation is then known to an eighth (1 / sqrt(2 * 31))."""
WORDS_MIN = 50
"""Below so many words of either sort there is nothing to compare."""
WORDS_MAX = 10_000
"""A larger shard is itself drawn from: distinct-n of more words says the same and costs seconds."""


Signature = npt.NDArray[Any]
"""The hash values of a MinHash."""


@dataclass(frozen=True)
class _Text:
    """A text as the figures see it."""

    words: tuple[str, ...]
    hashes: Signature


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The figures of one shard; empty where there are too few words to compare."""

    words: int
    """Words on either side of the comparison."""
    synthetic: Mapping[str, float]
    real: Mapping[str, float]
    real_sd: Mapping[str, float]
    """Standard deviation of the real figure over draws of that many words."""
    coverage: Mapping[str, float]
    coverage_sd: Mapping[str, float]
    """Standard deviation of the coverage, resampled over the shard's samples."""

    def flat(self) -> dict[str, float]:
        """Return all figures under names like `real_sd.distinct_2`: what travels in `ShardCurated.diversity`."""
        groups = ("synthetic", "real", "real_sd", "coverage", "coverage_sd")
        figures = {f"{group}.{name}": value for group in groups for name, value in getattr(self, group).items()}
        return figures | {"words": float(self.words)}


def measure(candidates: Sequence[Candidate], corpus: Corpus, *, seed: str) -> Measured:
    """Measure the accepted candidates of one batch against the training documents."""
    texts = [_Text(candidate.words, candidate.signature.hashvalues) for candidate in candidates]
    population = _one_per_passage(corpus.real.values())
    real_words = sum(one.words for one in population)
    # At most half of the real text: a draw that takes all of it would have no spread to compare with.
    own_words = sum(len(text.words) for text in texts)
    words = min(own_words, real_words // 2, WORDS_MAX)
    enough = own_words >= WORDS_MIN
    shares = coverage([(c.text, c.source or "") for c in candidates], corpus.vocabulary) if enough else {}
    resampled = _coverage_spread(candidates, corpus.vocabulary, seed) if enough else {}
    if words < WORDS_MIN:
        return Measured(words=words, synthetic={}, real={}, real_sd={}, coverage=shares, coverage_sd=resampled)
    known: dict[int, _Text] = {}

    def real_text(place: int) -> _Text:
        if place not in known:
            one = population[place]
            known[place] = _Text(wording.words(training_text(one.sample)), one.signature.hashvalues)
        return known[place]

    drawn = [_figures(_cut(map(real_text, order), words)) for order in _orders(len(population), f"real:{seed}")]
    # Draws overlap the more, the larger a part of all real text each is; this undoes what that hides.
    unhidden = (1 - words / real_words) ** -0.5
    whole = own_words <= words
    own = [texts] if whole else [_cut(map(texts.__getitem__, o), words) for o in _orders(len(texts), f"own:{seed}")]
    mine = [_figures(sample) for sample in own]
    return Measured(
        words=words,
        synthetic={name: round(statistics.fmean(one[name] for one in mine), 4) for name in FIGURES},
        real={name: round(statistics.fmean(one[name] for one in drawn), 4) for name in FIGURES},
        real_sd={name: round(unhidden * statistics.stdev([one[name] for one in drawn]), 5) for name in FIGURES},
        coverage=shares,
        coverage_sd=resampled,
    )


def variety(texts: Sequence[str]) -> dict[str, float]:
    """Return distinct-1/2/4 (distinct n-grams / n-grams), the zlib compression ratio and the mean length in words."""
    return _variety([wording.words(text) for text in texts])


def coverage(pairs: Sequence[tuple[str, str]], vocabulary: Mapping[str, int]) -> Mapping[str, float]:
    """Return which share of the passages' words the texts use, by how rare the words are in the real data.

    `pairs`: each text with its passage. `vocabulary` counts the real passages that hold a word; a bucket without words
    is left out.
    """
    return _coverage([(_stems(text), _stems(passage)) for text, passage in pairs], vocabulary)


def repeats(candidates: Sequence[Candidate], *, threshold: float) -> float | None:
    """Return the share of a batch's samples that nearly repeat an earlier one of the same batch; None of no samples.

    Looked at before any filter, and without earlier shards: those fill up in every long run, and a generator that says
    one thing over and over is seen in its first batch.
    """
    if not candidates:
        return None
    index = NearDuplicateIndex(threshold=threshold)
    found = 0
    for candidate in candidates:
        found += index.find(candidate.signatures) is not None
        index.add(candidate.sample.sample_id, candidate.signature)
    return round(found / len(candidates), 4)


def _one_per_passage(real: Collection[RealSample]) -> list[RealSample]:
    """Return the first real sample of every passage: the others say the same the other way round."""
    first: dict[tuple[str, int], RealSample] = {}
    for one in real:
        first.setdefault((one.sample.document_id, one.sample.chunk_index), one)
    return list(first.values())


def _orders(count: int, seed: str) -> Iterator[Iterator[int]]:
    """Yield DRAWS random orders of `range(count)`, each made only as far as it is read."""
    for number in range(DRAWS):
        yield _order(count, random.Random(f"{seed}:{number}"))  # noqa: S311 - reproducible, not secret


def _order(count: int, draw: random.Random) -> Iterator[int]:
    """Shuffle lazily: a draw reads a few places of perhaps a hundred thousand."""
    moved: dict[int, int] = {}
    for end in range(count - 1, -1, -1):
        place = draw.randrange(end + 1)
        yield moved.get(place, place)
        moved[place] = moved.pop(end, end)


def _cut(texts: Iterator[_Text], words: int) -> list[_Text]:
    """Take texts until they hold exactly `words` words, the last one cut short."""
    taken: list[_Text] = []
    for text in texts:
        taken.append(_Text(text.words[:words], text.hashes))
        words -= len(taken[-1].words)
        if words == 0:
            break
    return taken


def _figures(texts: Sequence[_Text]) -> dict[str, float]:
    figures = _variety([text.words for text in texts])
    return figures | {"self_similarity": _self_similarity([text.hashes for text in texts])}


def _variety(tokenised: Sequence[tuple[str, ...]]) -> dict[str, float]:
    joined = "\n".join(" ".join(tokens) for tokens in tokenised).encode()
    figures = {f"distinct_{n}": _distinct(tokenised, n) for n in (1, 2, 4)}
    figures["compression_ratio"] = round(len(joined) / len(zlib.compress(joined, 9)), 4) if joined else 0.0
    figures["words_mean"] = round(sum(map(len, tokenised)) / max(1, len(tokenised)), 2)
    return figures


def _distinct(tokenised: Sequence[tuple[str, ...]], n: int) -> float:
    grams = [gram for tokens in tokenised for gram in wording.ngrams(tokens, n)]
    return round(len(set(grams)) / len(grams), 4) if grams else 0.0


def _self_similarity(signatures: Sequence[Signature]) -> float:
    """Return the mean similarity of each text to the one most like it, estimated from the MinHash signatures.

    Of all pairs the mean is next to nothing for any text: two samples in a hundred that are twins do not show in it.
    """
    if len(signatures) < 2:
        return 0.0
    table = np.stack(signatures)
    nearest = []
    for place, row in enumerate(table):
        alike = (table == row).mean(axis=1)
        alike[place] = 0.0
        nearest.append(float(alike.max()))
    return round(statistics.fmean(nearest), 4)


def _stems(text: str) -> frozenset[str]:
    return frozenset(wording.content_words(text))


def _coverage(
    pairs: Sequence[tuple[frozenset[str], frozenset[str]]], vocabulary: Mapping[str, int]
) -> dict[str, float]:
    used = frozenset().union(*(text for text, _ in pairs))
    offered, reached = Counter[str](), Counter[str]()
    for word in frozenset().union(*(passage for _, passage in pairs)):
        bucket = _bucket(vocabulary.get(word, 0))
        offered[bucket] += 1
        reached[bucket] += word in used
    return {name: round(reached[name] / offered[name], 4) for name in COVERAGE_BUCKETS if offered[name]}


def _bucket(count: int) -> str:
    return next((name for name, (least, end) in COVERAGE_BUCKETS.items() if least <= count < end), "")


def _coverage_spread(candidates: Sequence[Candidate], vocabulary: Mapping[str, int], seed: str) -> dict[str, float]:
    """Resample the coverage by halves of the samples, whose spread is that of whole shards: (1 / (n/2)) * (1 - 1/2).

    Drawing with replacement would say too little: a sample that is drawn twice adds no second rare word.
    """
    pairs = [(_stems(candidate.text), _stems(candidate.source or "")) for candidate in candidates]
    seen: dict[str, list[float]] = {name: [] for name in COVERAGE_BUCKETS}
    for number in range(DRAWS):
        half = random.Random(f"coverage:{seed}:{number}").sample(pairs, len(pairs) // 2)  # noqa: S311 - reproducible
        for name, share in _coverage(half, vocabulary).items():
            seen[name].append(share)
    return {name: round(statistics.stdev(shares), 5) for name, shares in seen.items() if len(shares) > 1}
