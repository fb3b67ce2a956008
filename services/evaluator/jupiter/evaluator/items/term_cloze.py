"""Knowledge: which of four domain terms completes a held-out sentence.

Terms are words rare in the documents as a whole; the distractors are terms of other documents of
about the same length that do not occur in the passage.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import dataclass

from jupiter.evaluator.items.item import Corpus, Item, PromptSetting, half_of, item_id_of
from jupiter.evaluator.items.passages import passages

TERM_CHARS_MIN = 6
_TERM = re.compile(rf"\b[a-z]{{{TERM_CHARS_MIN},}}\b")
_TERM_IN_SENTENCE = re.compile(rf"(?<= )[a-z]{{{TERM_CHARS_MIN},}}(?=[ .,;])")
TERM_COUNT_MIN, TERM_COUNT_MAX = 2, 40
"""Seen at least twice (not a typing error), and rare enough to be a term."""
ITEMS_PER_DOCUMENT_MAX = 4
LEFT_CHARS_MIN = 60
RIGHT_CHARS_MAX = 80


@dataclass(frozen=True)
class TermCloze:
    name: str = "term_cloze"
    dimension: str = "knowledge"
    method: str = "choice"
    weight: float = 0.2
    terminator: str = "\n\n"
    templates: tuple[str, ...] = ("{left}",)
    settings: tuple[PromptSetting, ...] = (PromptSetting(0, 0),)

    def build(self, corpus: Corpus, rng: random.Random) -> list[Item]:
        texts = [doc for doc in corpus.held_out if doc.kind == "text"]
        counts = Counter(word for doc in texts for word in _TERM.findall(doc.text))
        terms = sorted(word for word, count in counts.items() if TERM_COUNT_MIN <= count <= TERM_COUNT_MAX)
        items: list[Item] = []
        for doc in texts:
            parts = passages(doc.text)
            rng.shuffle(parts)
            for part in parts[:ITEMS_PER_DOCUMENT_MAX]:
                item = self._item(doc.group, part, terms, rng)
                if item is not None:
                    items.append(item)
        rng.shuffle(items)
        return items

    def _item(self, group: str, part: str, terms: list[str], rng: random.Random) -> Item | None:
        known = set(terms)
        spots = [
            match
            for match in _TERM_IN_SENTENCE.finditer(part)
            if match.start() >= LEFT_CHARS_MIN and match.group() in known and match.group() not in part[: match.start()]
        ]
        if not spots:
            return None
        spot = rng.choice(spots)
        others = [
            term
            for term in terms
            if abs(len(term) - len(spot.group())) <= 1
            and term not in part
            and term[-2:] == spot.group()[-2:]
            and term[:4] != spot.group()[:4]
        ]
        if len(others) < 3:
            return None
        right = part[spot.end() : spot.end() + RIGHT_CHARS_MAX]
        choices = [spot.group(), *rng.sample(others, 3)]
        rng.shuffle(choices)
        return Item(
            item_id=item_id_of(self.name, part, spot.group()),
            kind=self.name,
            dimension="knowledge",
            cluster=group,
            half=half_of(group),
            fields={"left": part[: spot.start()].rstrip()},
            answer=f" {spot.group()}{right}",
            choices=tuple(f" {choice}{right}" for choice in choices),
            texts=(part,),
        )


KIND = TermCloze()
