"""Refusals and assistant boilerplate: true of the assistant, of no use as knowledge.

Phrases from the lists that OpenHermes, WizardLM-unfiltered and UltraChat's cleaning scripts drop by; matched near the
beginning of the answer, where boilerplate stands, so that prose *about* errors and apologies passes.
"""

from __future__ import annotations

import re

from jupiter.curator.candidate import Candidate
from jupiter.curator.filters.base import KEPT, Filter, Verdict

HEAD_CHARS = 160
_REFUSAL = re.compile(
    r"\b(?:as an? (?:ai|artificial intelligence|language model|llm)\b|i(?:'|’)?m (?:sorry|afraid|unable|not able)|"
    r"i am (?:sorry|unable|not able)|i (?:can(?:'|’)?t|cannot|can not|won(?:'|’)?t|do not|don(?:'|’)?t) "
    r"(?:assist|help|provide|answer|access|fulfill|complete|"
    r"have (?:access|enough|any information|the ability|personal))|"
    r"(?:my|the) training data|i don(?:'|’)?t know|there is (?:not enough|no) (?:information|context)|"
    r"the (?:passage|text|context) does(?: not|n(?:'|’)?t) "
    r"(?:say|mention|specify|provide|state|contain (?:any )?info))",
    re.IGNORECASE,
)
_CHATTER = re.compile(
    r"^\W*(?:sure[,!.]|certainly[,!.]|of course[,!.]|absolutely[,!.]|i(?:'|’)?d be happy to|i(?:'|’)?m happy to|"
    r"great question|let me know if|feel free to|here(?:'|’)?s (?:a|an|the|your) (?:\w+ ){0,3}"
    r"(?:question|answer|rewrite|version|paraphrase|summary|explanation)|here is (?:a|an|the|your) (?:\w+ ){0,3}"
    r"(?:question|answer|rewrite|version|paraphrase|summary|explanation))",
    re.IGNORECASE,
)


class Refusal(Filter):
    name = "refusal"
    order = 340

    def judge(self, candidate: Candidate) -> Verdict:
        head = candidate.sample.response[:HEAD_CHARS]
        if _REFUSAL.search(head):
            return Verdict(kept=False, reason="refusal")
        if _CHATTER.search(head):
            return Verdict(kept=False, reason="chatter")
        return KEPT
