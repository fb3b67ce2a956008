"""Size and character checks: what no reader of the shard should have to handle."""

from __future__ import annotations

import re

from jupiter.curator.candidate import Candidate
from jupiter.curator.filters.base import KEPT, Filter, Verdict

INSTRUCTION_CHARS_MAX = 2_000
RESPONSE_CHARS_MAX = 16_000
"""Four times what 1,024 new tokens are in English: more is a runaway, whatever made it."""
# Control characters but tab and line feed, lone surrogates, the replacement character, non-characters.
_BROKEN = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff\ufffd\ufffe\uffff]")


class Schema(Filter):
    name = "schema"
    order = 100

    def judge(self, candidate: Candidate) -> Verdict:
        sample = candidate.sample
        instruction = sample.instruction or ""
        if sample.origin != "synthetic":
            return Verdict(kept=False, reason="not_synthetic")
        if not sample.response.strip() or (sample.instruction is not None and not instruction.strip()):
            return Verdict(kept=False, reason="empty")
        if len(instruction) > INSTRUCTION_CHARS_MAX or len(sample.response) > RESPONSE_CHARS_MAX:
            return Verdict(kept=False, reason="too_large", score=float(len(sample.response)))
        if _BROKEN.search(instruction + sample.response):
            return Verdict(kept=False, reason="broken_characters")
        return KEPT
