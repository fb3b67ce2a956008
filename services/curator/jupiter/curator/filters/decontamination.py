"""Nothing of the frozen benchmark enters a shard; the rule itself is in `benchmark`, real samples pass it too."""

from __future__ import annotations

from jupiter.curator.candidate import Candidate
from jupiter.curator.filters.base import KEPT, Filter, Verdict


class Decontamination(Filter):
    name = "decontamination"
    order = 800

    def judge(self, candidate: Candidate) -> Verdict:
        reason = self.context.forbidden.overlap(candidate.words, [candidate.signatures, candidate.response_signatures])
        return KEPT if reason is None else Verdict(kept=False, reason=reason)
