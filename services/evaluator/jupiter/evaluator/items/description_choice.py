"""Knowledge: which of four names a held-out description belongs to.

One distractor lives in the same container where there is one. Descriptions that hold a telling
part of the right name are left out, so that word overlap cannot answer.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from jupiter.evaluator.items.distractors import title_distractors
from jupiter.evaluator.items.item import Corpus, Item, PromptSetting, half_of, item_id_of
from jupiter.evaluator.items.titles import gives_away, word_jaccard

WORD_JACCARD_MAX = 0.6


@dataclass(frozen=True)
class DescriptionChoice:
    name: str = "description_choice"
    dimension: str = "knowledge"
    method: str = "choice"
    weight: float = 0.4
    terminator: str = "\n"
    templates: tuple[str, ...] = (
        'Which of the library\'s names fits this description: "{text}"\nName:',
        "Documentation: {text}\nThis documents the name",
    )
    settings: tuple[PromptSetting, ...] = (PromptSetting(0, 0), PromptSetting(1, 0), PromptSetting(0, 3))

    def build(self, corpus: Corpus, rng: random.Random) -> list[Item]:
        trained = corpus.training_text()
        titles = sorted(set(trained) | {doc.title for doc in corpus.held_out if doc.kind == "api" and doc.title})
        items: list[Item] = []
        for doc in corpus.held_out:
            if doc.kind != "api" or not doc.title or gives_away(doc.text, doc.title):
                continue
            if word_jaccard(doc.text, trained.get(doc.title, "")) > WORD_JACCARD_MAX:
                continue
            distractors = title_distractors(doc.title, doc.text, titles, rng)
            if len(distractors) < 3:
                continue
            choices = [doc.title, *distractors]
            rng.shuffle(choices)
            items.append(
                Item(
                    item_id=item_id_of(self.name, doc.title, doc.text),
                    kind=self.name,
                    dimension="knowledge",
                    cluster=doc.group,
                    half=half_of(doc.group),
                    fields={"text": doc.text},
                    answer=f" {doc.title}",
                    choices=tuple(f" {choice}" for choice in choices),
                    exposure="recall" if doc.title in trained else "unseen",
                    texts=(doc.text,),
                )
            )
        rng.shuffle(items)
        return items


KIND = DescriptionChoice()
