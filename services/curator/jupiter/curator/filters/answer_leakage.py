"""A question that asks for a name must not hold it: `json.dumps writes JSON. What is it called?` teaches nothing.

Parts of the name count from four letters on, unless the passage itself uses them (`Dump an object` for `dump`).
"""

from __future__ import annotations

from jupiter.curator.candidate import Candidate
from jupiter.curator.filters.base import KEPT, Filter, Verdict
from jupiter.overlap import wording

PART_CHARS_MIN = 4


class AnswerLeakage(Filter):
    name = "answer_leakage"
    order = 360

    def judge(self, candidate: Candidate) -> Verdict:
        if not candidate.names_the_answer or candidate.title is None:
            return KEPT
        name = candidate.title.rpartition(".")[2].lower()
        parts = {name, *name.split("_"), *wording.words(candidate.title)}
        telling = {part for part in parts if len(part) >= PART_CHARS_MIN}
        said = set(candidate.instruction_words) - set(wording.words(candidate.source or ""))
        return Verdict(kept=False, reason="names_the_answer") if telling & said else KEPT
