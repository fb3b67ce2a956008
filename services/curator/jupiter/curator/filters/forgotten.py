"""A sample of a document that was recalled.

Its request may be older than the recall, so a generator may still have made it.
"""

from __future__ import annotations

from jupiter.curator.candidate import Candidate
from jupiter.curator.filters.base import KEPT, Filter, Verdict


class Forgotten(Filter):
    name = "forgotten"
    order = 140

    def judge(self, candidate: Candidate) -> Verdict:
        forgotten = self.context.corpus.is_forgotten(candidate.sample.document_id)
        return Verdict(kept=False, reason="forgotten") if forgotten else KEPT
