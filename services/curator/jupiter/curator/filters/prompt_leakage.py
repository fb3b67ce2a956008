"""Text that belongs to the prompt, not to the sample: markup of the chat template, labels, talk about the passage.

Training is closed book: the student never sees the passage, so an instruction that points to it cannot be answered.
A run of words copied from the prompt's own instructions (the prompt less the passage) gives the rest away.
"""

from __future__ import annotations

import re

from jupiter.curator.candidate import Candidate
from jupiter.curator.filters.base import KEPT, Filter, Verdict
from jupiter.overlap import wording

COPIED_WORDS = 6
"""A run of so many words shared with the prompt's own wording (its worked examples are short) is no coincidence."""
_MARKUP = re.compile(
    r"<\|[\w ]{1,40}\|>|\[/?INST\]|<</?SYS>>|</?s>|<(?:start|end)_of_turn>|###\s*(?:Instruction|Response|Input)"
)
_LABEL = re.compile(
    r"^\s*(?:question|q|answer|a|instruction|response|assistant|user|system|passage|audience|difficulty)\s*:",
    re.IGNORECASE | re.MULTILINE,
)
# Not `the context`, `the document`, `the text` alone: decimal, xml and textwrap speak of nothing else.
_PASSAGE = re.compile(
    r"\b(?:(?:the|this) (?:passage|excerpt|above text|given text|provided text|text above|snippet above)|"
    r"(?:according to|based on|as (?:stated|described|mentioned) in) (?:the|this) "
    r"(?:text|document|documentation|context|paragraph|description|information)|"
    r"(?:mentioned|described|given|provided|stated) above)\b",
    re.IGNORECASE,
)


class PromptLeakage(Filter):
    name = "prompt_leakage"
    order = 350

    def judge(self, candidate: Candidate) -> Verdict:
        sample = candidate.sample
        if _MARKUP.search(candidate.text):
            return Verdict(kept=False, reason="chat_markup")
        if _LABEL.search(sample.response) or _LABEL.search(sample.instruction or ""):
            return Verdict(kept=False, reason="prompt_label")
        if _PASSAGE.search(candidate.text):
            return Verdict(kept=False, reason="refers_to_passage")
        if sample.prompt and candidate.source and self._copies_prompt(candidate, sample.prompt, candidate.source):
            return Verdict(kept=False, reason="copies_prompt")
        return KEPT

    def _copies_prompt(self, candidate: Candidate, prompt: str, source: str) -> bool:
        own = set(wording.ngrams(wording.words(prompt), COPIED_WORDS))
        own -= set(wording.ngrams(wording.words(source), COPIED_WORDS))
        # The instruction may itself be a part of the prompt (the template asked it); only the claim is judged.
        if candidate.sample.instruction and candidate.sample.instruction in prompt:
            own -= set(wording.ngrams(candidate.instruction_words, COPIED_WORDS))
        return any(gram in own for gram in wording.ngrams(candidate.claim_words, COPIED_WORDS))
