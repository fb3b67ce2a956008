"""A sample must come from a passage that exists and may be trained on.

The leak guard of the split: whatever asked for it, nothing made from a held-out document enters a shard.
"""

from __future__ import annotations

from jupiter.curator.candidate import Candidate
from jupiter.curator.filters.base import KEPT, Filter, Verdict


class Provenance(Filter):
    name = "provenance"
    order = 150

    def judge(self, candidate: Candidate) -> Verdict:
        split = self.context.corpus.split_of(candidate.sample.document_id)
        if split is None:
            return Verdict(kept=False, reason="unknown_document")
        if split == "held_out":
            return Verdict(kept=False, reason="held_out_document")
        if candidate.source is None:
            return Verdict(kept=False, reason="unknown_chunk")
        return KEPT
