"""A score from 0 to 1; what is under `curator.min_quality_score` is dropped.

Only the bottom is dropped, and nothing in the score rewards the likely or the typical: keeping the least surprising
samples speeds up collapse (arXiv 2410.12341). The score is the mean of five plain properties, each 0 to 1, so that a
rejected sample's figure can be explained; none of them is learned.
"""

from __future__ import annotations

from jupiter.curator.candidate import Candidate
from jupiter.curator.filters.base import Filter, Verdict
from jupiter.curator.filters.grounding import grounded_share, share_found
from jupiter.overlap import wording

CLAIM_WORDS_FULL = 8
"""A claim of so many words or more has the full score for length; one word has an eighth."""
CLAIM_WORDS_LONG = 300
VARIETY_FULL = 0.6
"""Distinct words / words; English prose of 50 words has about .75, loops have less than .4."""


class Quality(Filter):
    name = "quality"
    order = 900

    def judge(self, candidate: Candidate) -> Verdict:
        score = quality(candidate)
        if score < self.context.settings.min_quality_score:
            return Verdict(kept=False, reason="low_quality", score=score)
        return Verdict(kept=True, score=score)


def quality(candidate: Candidate) -> float:
    """Return the mean of length, variety, grounding, relation of answer to question, and form."""
    words = candidate.claim_words
    length = min(1.0, len(words) / CLAIM_WORDS_FULL) * min(1.0, CLAIM_WORDS_LONG / max(1, len(words)))
    variety = min(1.0, len(set(words)) / max(1, len(words)) / VARIETY_FULL)
    known = frozenset(wording.content_words(f"{candidate.title or ''} {candidate.source or ''}"))
    grounded = grounded_share(candidate)
    asked = share_found(wording.content_words(candidate.sample.instruction or ""), known)
    response = candidate.claim.strip()
    form = (float(response[:1].isupper() or not response[:1].isalpha()) + float(response[-1:] in ".!?`)]\"'")) / 2
    return (length + variety + grounded + asked + form) / 5
