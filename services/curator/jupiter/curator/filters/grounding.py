"""What an answer says must be in its passage: most of its content words, and every figure.

A 135M model invents freely when asked openly (23 % of candidates survived execution, DESIGN §6) and rewrites a given
passage passably, so this is the filter that matters most. Word overlap is the support measure of extractive
summarisation (ROUGE-1 precision, Lin 2004) on stems without function words; figures are all or nothing since a wrong
default or year is a wrong fact however well the rest agrees. The bound is `curator.grounding_share_min`.

The passage counts with its title, and the question's own words count for the answer too: an answer may repeat them.
Code is verified by running it; it must only be about the thing: it names what the title names.
"""

from __future__ import annotations

from jupiter.curator import wording
from jupiter.curator.candidate import Candidate
from jupiter.curator.filters.base import KEPT, Filter, Verdict

QUESTION_SHARE_MIN = 0.3
"""A question may add words of its own (`purpose`, `standard library`), but must be about the passage."""


class Grounding(Filter):
    name = "grounding"
    order = 500

    def judge(self, candidate: Candidate) -> Verdict:
        passage = f"{candidate.title or ''}\n{candidate.source or ''}"
        if candidate.is_code:
            return self._names_the_thing(candidate)
        known = frozenset(wording.content_words(passage))
        sample = candidate.sample
        if sample.instruction is not None:
            asked = share_found(wording.content_words(sample.instruction), known)
            if asked < QUESTION_SHARE_MIN:
                return Verdict(kept=False, reason="ungrounded_question", score=asked)
        if not wording.figures(sample.response) <= wording.figures(f"{passage}\n{sample.instruction or ''}"):
            return Verdict(kept=False, reason="ungrounded_figure")
        share = share_found(wording.content_words(sample.response), known)
        if share < self.context.settings.grounding_share_min:
            return Verdict(kept=False, reason="ungrounded_words", score=share)
        return Verdict(kept=True, score=share)

    def _names_the_thing(self, candidate: Candidate) -> Verdict:
        name = (candidate.title or "").rpartition(".")[2]
        if name and name.lower() not in (candidate.code or "").lower():
            return Verdict(kept=False, reason="code_off_topic")
        return KEPT


def share_found(content: tuple[str, ...], known: frozenset[str]) -> float:
    """Return the share of words (repeats counted) that are in `known`; 1 when there are none to check."""
    return sum(word in known for word in content) / len(content) if content else 1.0
