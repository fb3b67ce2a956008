"""Nothing of the frozen benchmark enters a shard; the rule itself is in `benchmark`, real samples pass it too.

Switched off by `curator.decontaminate`; what then comes in is counted (`shard`).
"""

from __future__ import annotations

from jupiter.curator.candidate import Candidate
from jupiter.curator.filters.base import KEPT, Filter, Verdict


class Decontamination(Filter):
    name = "decontamination"
    order = 800

    def judge(self, candidate: Candidate) -> Verdict:
        if not self.context.settings.decontaminate:
            return KEPT
        reason = self.context.forbidden.overlap(candidate.words, [candidate.signatures, candidate.response_signatures])
        return KEPT if reason is None else Verdict(kept=False, reason=reason)
