"""Answers that stop in mid-sentence: cut by the token limit, or ending on a word that cannot end one.

C4 keeps only lines that end in terminal punctuation; FineWeb drops pages where fewer than 12 % of lines do. Here the
generator says when it was cut (`finish_reason`), which is better evidence: an answer that stopped by itself need
not end in a full stop (it may be a name), but it must not end on a comma, an open bracket or a function word.
An answer cut at the limit whose last sentence is whole lost nothing that shows; it is kept.
"""

from __future__ import annotations

import re

from jupiter.curator.candidate import Candidate
from jupiter.curator.filters.base import KEPT, Filter, Verdict

_WHOLE_END = re.compile(r"""[.!?:;][)\]"'’”`*_]*$|```$""")
_OPEN_END = re.compile(r"[,(\[{\-–—=+/&<]$")
_DANGLING = frozenset("a an the of to and or but with by for from in on at as is are that which if when than".split())  # noqa: SIM905
_WORDS_MIN = 4
"""Shorter answers may be a name that happens to be a function word (`operator.and`)."""


class Truncation(Filter):
    name = "truncation"
    order = 330

    def judge(self, candidate: Candidate) -> Verdict:
        response = candidate.sample.response.rstrip()
        if candidate.is_code:
            # Cut code rarely parses, and whole code needs no full stop: `code` decides.
            return KEPT
        if candidate.sample.finish_reason == "length" and not _WHOLE_END.search(response):
            return Verdict(kept=False, reason="truncated")
        if response.count("```") % 2:
            return Verdict(kept=False, reason="open_code_block")
        words = candidate.response_words
        cut = _OPEN_END.search(response) or (response[-1:].isalnum() and words[-1:] and words[-1] in _DANGLING)
        if len(words) >= _WORDS_MIN and cut:
            return Verdict(kept=False, reason="dangling_end")
        return KEPT
