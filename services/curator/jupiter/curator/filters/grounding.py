"""What a sample says must be in its passage: enough of its content words, and every figure.

A 135M model invents freely when asked openly (23 % of candidates survived execution, DESIGN §6) and rewrites a given
passage passably, so this is the filter that matters most. Word overlap is the support measure of extractive
summarisation (ROUGE-1 precision, Lin 2004) on five-letter stems without function words; figures are all or nothing
since a wrong default or year is a wrong fact however well the rest agrees. The bound is `curator.grounding_share_min`;
what is judged is the claim: the response, or the question where the response is only the name asked for.

The title is no evidence: its words are passed over where the passage does not use them (`pickletools is a library that
you write pickles with` is about nothing but its name). A claim must share two content words with the passage, for one
may be chance (`When the heap is empty`), and a question must be about the passage or its title. Code is verified by
running it; it must only be about the thing: it names what the title names.
"""

from __future__ import annotations

from jupiter.curator.candidate import Candidate
from jupiter.curator.filters.base import KEPT, Filter, Verdict
from jupiter.overlap import wording

QUESTION_SHARE_MIN = 0.3
"""A question may add words of its own (`purpose`, `called`), but must be about the passage."""
SHARED_WORDS_MIN = 2
# Words that any reference entry may use of itself: finding or missing them says nothing.
_OF_ANY_ENTRY = frozenset(map(wording.stem, ("function", "class", "method", "module", "python", "returns", "called")))


class Grounding(Filter):
    name = "grounding"
    order = 500

    def judge(self, candidate: Candidate) -> Verdict:
        if candidate.is_code:
            return self._names_the_thing(candidate)
        title, source = candidate.title or "", candidate.source or ""
        if not wording.figures(candidate.text) <= wording.figures(f"{title}\n{source}"):
            return Verdict(kept=False, reason="ungrounded_figure")
        known = frozenset(wording.content_words(source))
        if candidate.sample.instruction is not None and not candidate.names_the_answer:
            asked = share_found(
                wording.content_words(candidate.sample.instruction), known | set(wording.content_words(title))
            )
            if asked < QUESTION_SHARE_MIN:
                return Verdict(kept=False, reason="ungrounded_question", score=asked)
        claimed = wording.content_words(candidate.claim)
        share = grounded_share(candidate)
        if share < self.context.settings.grounding_share_min:
            return Verdict(kept=False, reason="ungrounded_words", score=share)
        shared = known & set(claimed)
        if len(shared) < min(SHARED_WORDS_MIN, len(known)):
            return Verdict(kept=False, reason="thin_claim", score=float(len(shared)))
        return Verdict(kept=True, score=share)

    def _names_the_thing(self, candidate: Candidate) -> Verdict:
        name = (candidate.title or "").rpartition(".")[2]
        if name and name.lower() not in (candidate.code or "").lower():
            return Verdict(kept=False, reason="code_off_topic")
        return KEPT


def grounded_share(candidate: Candidate) -> float:
    """Return the share of the claim's content words that the passage has, the title's words passed over."""
    known = frozenset(wording.content_words(candidate.source or ""))
    passed_over = set(wording.content_words(candidate.title or "")) - known
    claimed = wording.content_words(candidate.claim)
    return share_found(tuple(word for word in claimed if word not in passed_over), known)


def share_found(content: tuple[str, ...], known: frozenset[str]) -> float:
    """Return the share of words (repeats counted) that are in `known`; 1 when there are none to check."""
    checked = [word for word in content if word not in _OF_ANY_ENTRY]
    return sum(word in known for word in checked) / len(checked) if checked else 1.0
