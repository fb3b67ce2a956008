"""Coherence: whether the model's own answers are well formed (repetition, termination, format).

No judge: each answer's measures must lie inside the band of real held-out text, which the benchmark
freezes. The prompt asks about a held-out title; whether the answer is right is not asked here.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from jupiter.evaluator.items.item import Corpus, Item, PromptSetting, half_of, item_id_of
from jupiter.evaluator.items.passages import passages


@dataclass(frozen=True)
class GenerationHealth:
    name: str = "generation_health"
    dimension: str = "coherence"
    method: str = "health"
    weight: float = 1 / 3
    terminator: str = "\n\n"
    templates: tuple[str, ...] = (
        "Question: What should one know about {title}?\nAnswer:",
        "<|chat|>Explain in two or three sentences what one should know about {title}.",
    )
    settings: tuple[PromptSetting, ...] = (PromptSetting(0, 0), PromptSetting(1, 0))

    def build(self, corpus: Corpus, rng: random.Random) -> list[Item]:
        titles = {doc.title: doc.group for doc in corpus.held_out if doc.kind == "api" and doc.title}
        if not titles:
            titles = {
                parts[0].split(".")[0][:80]: doc.group for doc in corpus.held_out if (parts := passages(doc.text))
            }
        items = [
            Item(
                item_id=item_id_of(self.name, title),
                kind=self.name,
                dimension="coherence",
                cluster=group,
                half=half_of(group),
                fields={"title": title},
                answer="",
            )
            for title, group in titles.items()
        ]
        rng.shuffle(items)
        return items


KIND = GenerationHealth()
