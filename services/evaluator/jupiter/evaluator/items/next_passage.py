"""Coherence: which of four passages of the same document really comes next.

The three distractors are later or earlier passages of that document, so topic and style cannot
answer; their lengths are near the real one's.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from jupiter.evaluator.items.item import Corpus, Item, PromptSetting, half_of, item_id_of
from jupiter.evaluator.items.passages import passages

CONTEXT_PASSAGES = 2
PASSAGES_MIN = 8
ITEMS_PER_DOCUMENT_MAX = 6


@dataclass(frozen=True)
class NextPassage:
    name: str = "next_passage"
    dimension: str = "coherence"
    method: str = "choice"
    weight: float = 2 / 3
    terminator: str = "\n\n"
    templates: tuple[str, ...] = ("{context}\n\n",)
    settings: tuple[PromptSetting, ...] = (PromptSetting(0, 0),)

    def build(self, corpus: Corpus, rng: random.Random) -> list[Item]:
        items: list[Item] = []
        for doc in corpus.held_out:
            parts = passages(doc.text) if doc.kind == "text" else []
            if len(parts) < PASSAGES_MIN:
                continue
            positions = list(range(CONTEXT_PASSAGES, len(parts)))
            for position in rng.sample(positions, min(len(positions), ITEMS_PER_DOCUMENT_MAX)):
                context = "\n\n".join(parts[position - CONTEXT_PASSAGES : position])
                others = [
                    part for i, part in enumerate(parts) if i not in range(position - CONTEXT_PASSAGES, position + 1)
                ]
                others.sort(key=lambda part: abs(len(part) - len(parts[position])))
                choices = [parts[position], *rng.sample(others[:6], 3)]
                rng.shuffle(choices)
                items.append(
                    Item(
                        item_id=item_id_of(self.name, context, parts[position]),
                        kind=self.name,
                        dimension="coherence",
                        cluster=doc.group,
                        half=half_of(doc.group),
                        fields={"context": context},
                        answer=parts[position],
                        choices=tuple(choices),
                        texts=(parts[position],),
                    )
                )
        rng.shuffle(items)
        return items


KIND = NextPassage()
