"""A sample must say something that the earlier ones of the same document do not.

Self-Instruct (Wang et al. 2023, arXiv 2212.10560) keeps an instruction whose ROUGE-L with every earlier one is below
.7. Compared over the whole pool that is quadratic, and here it would be wrong: `What does json.dump do?` and `What does
json.load do?` have .8 and are different questions. So only samples of one document are compared (the cap per document
bounds the work), and one is dropped only when both its instruction and its response are that close to an earlier
one's: the same question answered in other words is what a small student learns a fact from. A claim that is the
passage over again is no new sample either: real data enters as real, within its repeats.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from jupiter.curator.candidate import Candidate
from jupiter.curator.filters.base import KEPT, Context, Filter, Verdict
from jupiter.overlap import wording

COPY_ROUGE_MIN = 0.9
"""From here on the sample is the passage again: the real sample says it already, and its repeats are counted."""
COMPARED_WORDS_MAX = 200
"""Only so many first words are compared: the alignment is quadratic in them."""

Wording = tuple[tuple[str, ...], tuple[str, ...]]


class Novelty(Filter):
    name = "novelty"
    order = 600

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._here: dict[str, list[Wording]] = defaultdict(list)

    def judge(self, candidate: Candidate) -> Verdict:
        copied = rouge_l(candidate.claim_words, wording.words(candidate.source or ""))
        if copied >= COPY_ROUGE_MIN:
            return Verdict(kept=False, reason="copies_passage", score=copied)
        document_id = candidate.sample.document_id
        similarity_max = self.context.settings.novelty_rouge_max
        for earlier in (*self.context.history.wordings_of(document_id), *self._here[document_id]):
            # Responses first: they differ more often, and one of the two is enough to keep the sample.
            similarity = rouge_l(candidate.response_words, earlier[1])
            if similarity >= similarity_max:
                similarity = min(similarity, rouge_l(candidate.instruction_words, earlier[0]))
            if similarity >= similarity_max:
                return Verdict(kept=False, reason="not_novel", score=similarity)
        return KEPT

    def remember(self, candidate: Candidate) -> None:
        self._here[candidate.sample.document_id].append((candidate.instruction_words, candidate.response_words))


def rouge_l(left: Sequence[str], right: Sequence[str]) -> float:
    """Return the F-measure of the longest common subsequence of words (Lin 2004), 0 to 1; 1 for two empty texts."""
    left, right = left[:COMPARED_WORDS_MAX], right[:COMPARED_WORDS_MAX]
    if not left or not right:
        return float(left == right)
    row = [0] * (len(right) + 1)
    for word in left:
        diagonal = 0
        for column, other in enumerate(right, start=1):
            above = row[column]
            row[column] = diagonal + 1 if word == other else max(above, row[column - 1])
            diagonal = above
    return 2 * row[-1] / (len(left) + len(right))
