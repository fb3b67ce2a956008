"""Text that says the same over and over, after Gopher (arXiv 2112.11446, table A1) as FineWeb runs it in datatrove.

Gopher's bounds: duplicate lines 30 % of lines and 20 % of characters; the most frequent 2/3/4-gram at most 20/18/16 %
of characters; all duplicated 5..10-grams at most 15..10 %. They hold for pages: in an answer of 20 words a 2-gram that
occurs twice is already over 20 %. So n-grams count only when they occur at least 3 times, the shares are of words, and
the duplicated-run rule (5-grams) starts at 20 words. Greedy decoding of a small model loops on exactly these.
"""

from __future__ import annotations

import itertools
from collections import Counter

from jupiter.curator.candidate import Candidate
from jupiter.curator.filters.base import KEPT, Filter, Verdict
from jupiter.overlap import wording

DUPLICATE_LINES_SHARE_MAX = 0.3
TOP_NGRAM_SHARES_MAX = {2: 0.25, 3: 0.22, 4: 0.2}
TOP_NGRAM_TIMES_MIN = 3
DUPLICATED_RUN_WORDS = 5
DUPLICATED_RUN_SHARE_MAX = 0.25
DUPLICATED_RUN_FROM_WORDS = 20
SAME_WORD_IN_A_ROW_MAX = 3
VARIETY_MIN = 0.6
VARIETY_FROM_WORDS, VARIETY_TO_WORDS = 5, 60
"""Distinct words / words, where the length says little by itself: it falls with every text that grows."""


class Repetition(Filter):
    name = "repetition"
    order = 320

    def judge(self, candidate: Candidate) -> Verdict:
        words = candidate.claim_words
        return (
            self._lines(candidate.sample.response)
            or self._row(words)
            or self._top_ngrams(words)
            or self._duplicated_runs(words)
            or self._variety(words)
            or KEPT
        )

    def _lines(self, response: str) -> Verdict | None:
        lines = [line.strip() for line in response.splitlines() if len(line.strip()) > 1]
        if len(lines) < TOP_NGRAM_TIMES_MIN:
            return None
        share = 1 - len(set(lines)) / len(lines)
        return Verdict(kept=False, reason="repeated_lines", score=share) if share > DUPLICATE_LINES_SHARE_MAX else None

    def _row(self, words: tuple[str, ...]) -> Verdict | None:
        run = 1
        for previous, word in itertools.pairwise(words):
            run = run + 1 if word == previous else 1
            if run > SAME_WORD_IN_A_ROW_MAX:
                return Verdict(kept=False, reason="repeated_word", score=float(run))
        return None

    def _variety(self, words: tuple[str, ...]) -> Verdict | None:
        if not VARIETY_FROM_WORDS <= len(words) <= VARIETY_TO_WORDS:
            return None
        share = len(set(words)) / len(words)
        return Verdict(kept=False, reason="few_distinct_words", score=share) if share < VARIETY_MIN else None

    def _top_ngrams(self, words: tuple[str, ...]) -> Verdict | None:
        for n, share_max in TOP_NGRAM_SHARES_MAX.items():
            counts = Counter(wording.ngrams(words, n))
            times = max(counts.values(), default=0)
            share = times * n / max(1, len(words))
            if times >= TOP_NGRAM_TIMES_MIN and share > share_max:
                return Verdict(kept=False, reason=f"repeated_{n}gram", score=share)
        return None

    def _duplicated_runs(self, words: tuple[str, ...]) -> Verdict | None:
        if len(words) < DUPLICATED_RUN_FROM_WORDS:
            return None
        seen: set[tuple[str, ...]] = set()
        covered: set[int] = set()
        for start, gram in enumerate(wording.ngrams(words, DUPLICATED_RUN_WORDS)):
            if gram in seen:
                covered.update(range(start, start + DUPLICATED_RUN_WORDS))
            seen.add(gram)
        share = len(covered) / len(words)
        if share > DUPLICATED_RUN_SHARE_MAX:
            return Verdict(kept=False, reason="repeated_runs", score=share)
        return None
