"""Accuracy: which container offers what a description says, by exact answer.

The description is a second wording (held out); it holds neither the name nor the container.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from jupiter.evaluator.items.item import Corpus, Item, PromptSetting, half_of, item_id_of
from jupiter.evaluator.items.titles import container_and_name, gives_away, word_jaccard

WORD_JACCARD_MAX = 0.6
"""Above it a text counts as the trained sentence itself (DESIGN §9)."""


@dataclass(frozen=True)
class TopicFact:
    name: str = "topic_fact"
    dimension: str = "accuracy"
    method: str = "exact"
    weight: float = 0.125
    terminator: str = "\n"
    templates: tuple[str, ...] = (
        "Description: {text}\nFound in module:",
        "Documentation: {text}\nQ: Which module is this documentation from?\nA:",
    )
    settings: tuple[PromptSetting, ...] = (PromptSetting(0, 3), PromptSetting(1, 3))

    def build(self, corpus: Corpus, rng: random.Random) -> list[Item]:
        trained = corpus.training_text()
        items: list[Item] = []
        for doc in corpus.held_out:
            if doc.kind != "api" or not doc.title:
                continue
            container, _ = container_and_name(doc.title)
            if not container or gives_away(doc.text, doc.title) or gives_away(doc.text, container):
                continue
            if word_jaccard(doc.text, trained.get(doc.title, "")) > WORD_JACCARD_MAX:
                continue
            items.append(
                Item(
                    item_id=item_id_of(self.name, doc.title, doc.text),
                    kind=self.name,
                    dimension="accuracy",
                    cluster=doc.group,
                    half=half_of(doc.group),
                    fields={"text": doc.text},
                    answer=f" {container}",
                    exposure="recall" if doc.title in trained else "unseen",
                    texts=(doc.text,),
                )
            )
        rng.shuffle(items)
        return items


KIND = TopicFact()
