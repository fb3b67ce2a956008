"""Word counts, after Gopher (Rae et al. 2021, arXiv 2112.11446, A1.1), shortened for question-answer items.

Gopher keeps documents of 50-100,000 words whose mean word length is 3-10 characters: web pages. An item here is one
fact in 10-60 words, and an answer may be a single name (`json.dumps`), so the lower bounds are those of one question
and one name, the upper one is a page; the mean word length is judged over instruction and response together.
"""

from __future__ import annotations

from jupiter.curator.candidate import Candidate
from jupiter.curator.filters.base import KEPT, Filter, Verdict

INSTRUCTION_WORDS_MIN = 2
RESPONSE_WORDS_MIN = 1
CLAIM_WORDS_MIN = 3
"""What is said of the passage; a bare name as the answer to a question is not meant (`Candidate.claim`)."""
WORDS_MIN = 5
WORDS_MAX = 2_000
WORD_CHARS_MEAN_MIN, WORD_CHARS_MEAN_MAX = 2.5, 12.0
"""Gopher: 3-10. Code and dotted names are both shorter and longer than prose."""


class Length(Filter):
    name = "length"
    order = 300

    def judge(self, candidate: Candidate) -> Verdict:
        count = len(candidate.words)
        if candidate.sample.instruction is not None and len(candidate.instruction_words) < INSTRUCTION_WORDS_MIN:
            return Verdict(kept=False, reason="short_instruction", score=float(len(candidate.instruction_words)))
        if len(candidate.response_words) < RESPONSE_WORDS_MIN or count < WORDS_MIN:
            return Verdict(kept=False, reason="short_response", score=float(count))
        if candidate.names_the_answer and len(candidate.claim_words) < CLAIM_WORDS_MIN:
            return Verdict(kept=False, reason="short_claim", score=float(len(candidate.claim_words)))
        if count > WORDS_MAX:
            return Verdict(kept=False, reason="long_text", score=float(count))
        mean = sum(map(len, candidate.words)) / count
        if not WORD_CHARS_MEAN_MIN <= mean <= WORD_CHARS_MEAN_MAX:
            return Verdict(kept=False, reason="word_length", score=mean)
        return KEPT
