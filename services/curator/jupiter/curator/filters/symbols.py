"""Symbols, letters and stop words, after Gopher (arXiv 2112.11446, A1.1) and C4 (Raffel et al. 2020, arXiv 1910.10683).

Gopher: at most .1 `#` or `...` per word; at least 80 % of words hold a letter; at least two stop words. Here a text of
ten words with one ellipsis already has .1, so one symbol is free; 60 % of words must hold a letter (figures and
operators are content in a technical domain); the stop-word rule needs 15 words to mean anything.
C4 drops pages with `{`, `lorem ipsum` or a JavaScript notice. Braces are allowed: they are code here.
Code tasks are judged by the `code` filter instead.
"""

from __future__ import annotations

import re

from jupiter.curator.candidate import Candidate
from jupiter.curator.filters.base import KEPT, Filter, Verdict
from jupiter.overlap import wording

SYMBOLS_PER_WORD_MAX = 0.1
SYMBOLS_FREE = 1
LETTER_WORDS_SHARE_MIN = 0.6
STOP_WORDS_MIN = 2
STOP_WORDS_FROM_WORDS = 15
_SYMBOL = re.compile(r"#|\.\.\.|…")
_BOILERPLATE = re.compile(
    r"lorem ipsum|enable javascript|javascript (?:is|must be) |cookie policy|terms of use", re.IGNORECASE
)


class Symbols(Filter):
    name = "symbols"
    order = 310

    def judge(self, candidate: Candidate) -> Verdict:
        if _BOILERPLATE.search(candidate.text):
            return Verdict(kept=False, reason="page_boilerplate")
        if candidate.is_code:
            return KEPT
        text_words = candidate.text.split()
        symbols = len(_SYMBOL.findall(candidate.text))
        if symbols > max(SYMBOLS_FREE, SYMBOLS_PER_WORD_MAX * len(text_words)):
            return Verdict(kept=False, reason="symbols", score=symbols / len(text_words))
        lettered = sum(any(char.isalpha() for char in word) for word in text_words) / len(text_words)
        if lettered < LETTER_WORDS_SHARE_MIN:
            return Verdict(kept=False, reason="few_letters", score=lettered)
        if len(candidate.response_words) >= STOP_WORDS_FROM_WORDS:
            stops = sum(word in wording.STOP_WORDS for word in candidate.response_words)
            if stops < STOP_WORDS_MIN:
                return Verdict(kept=False, reason="few_stop_words", score=float(stops))
        return KEPT
