"""Nearly the same text: as a real one (the real one wins), as one of an earlier shard, as one of this batch.

MinHash LSH over word shingles (`signatures` has the sizes and the sums); `curator.near_duplicate_threshold` is the
similarity: .7-.8 is usual for web pages (FineWeb .75, RefinedWeb ~.8); items this short share their templates' words,
so the default is stricter.
"""

from __future__ import annotations

from jupiter.curator.candidate import Candidate
from jupiter.curator.filters.base import KEPT, Context, Filter, Verdict
from jupiter.overlap.signatures import NearDuplicateIndex


class NearDuplicate(Filter):
    name = "near_duplicate"
    order = 700

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._here = NearDuplicateIndex(threshold=context.settings.near_duplicate_threshold)

    def judge(self, candidate: Candidate) -> Verdict:
        places = (
            ("near_duplicate_real", self.context.corpus.index),
            ("near_duplicate_earlier", self.context.history.index),
            ("near_duplicate_batch", self._here),
        )
        for reason, index in places:
            found = index.find(candidate.signatures)
            if found is not None:
                return Verdict(kept=False, reason=reason, score=found[1])
        return KEPT

    def remember(self, candidate: Candidate) -> None:
        self._here.add(candidate.sample.sample_id, candidate.signature)
