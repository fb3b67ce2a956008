"""A question must not have two answers: the same words asking for `os.pwritev` here and `io.open` there.

A small model that rewrites a passage loses what tells it from its neighbours (`I want to write to a file`); learning
several names for one question teaches none. The first sample stays. Only questions that ask for a name are compared:
an explanation may have many wordings.
"""

from __future__ import annotations

from jupiter.curator.candidate import Candidate, digest_of_text
from jupiter.curator.filters.base import KEPT, Context, Filter, Verdict


class Ambiguity(Filter):
    name = "ambiguity"
    order = 550

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._here: dict[str, str] = {}

    def judge(self, candidate: Candidate) -> Verdict:
        if not candidate.names_the_answer:
            return KEPT
        question = digest_of_text(candidate.claim)
        places = (self.context.corpus.answer_to, self.context.history.answer_to, self._here.get)
        answers = {answer for place in places if (answer := place(question)) is not None}
        return KEPT if answers <= {candidate.sample.response} else Verdict(kept=False, reason="ambiguous_question")

    def remember(self, candidate: Candidate) -> None:
        if candidate.names_the_answer:
            self._here.setdefault(digest_of_text(candidate.claim), candidate.sample.response)
