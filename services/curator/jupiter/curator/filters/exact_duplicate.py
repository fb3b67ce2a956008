"""The same text twice, without regard to case and spacing: in this batch, in earlier shards, in the real data."""

from __future__ import annotations

from jupiter.curator.candidate import Candidate
from jupiter.curator.filters.base import KEPT, Context, Filter, Verdict


class ExactDuplicate(Filter):
    name = "exact_duplicate"
    order = 200

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._here: set[str] = set()

    def judge(self, candidate: Candidate) -> Verdict:
        digest = candidate.text_digest
        if self.context.corpus.has_text(digest):
            return Verdict(kept=False, reason="exact_duplicate_real")
        if digest in self._here or self.context.history.has_text(digest):
            return Verdict(kept=False, reason="exact_duplicate")
        return KEPT

    def remember(self, candidate: Candidate) -> None:
        self._here.add(candidate.text_digest)
