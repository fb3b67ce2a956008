"""Knowledge: which of four held-out descriptions belongs to a name.

The reverse of `description_choice`: the likelihood of each description after the name, per byte.
The distractors are descriptions of other entries, one from the same container where there is one.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from jupiter.evaluator.items.item import Corpus, Item, PromptSetting, half_of, item_id_of
from jupiter.evaluator.items.titles import container_and_name, gives_away, word_jaccard
from jupiter.records import Document

WORD_JACCARD_MAX = 0.6
LENGTH_RATIO_MAX = 2.0
"""A distractor's length stays within this factor: likelihood per byte falls with length."""


@dataclass(frozen=True)
class EntryChoice:
    name: str = "entry_choice"
    dimension: str = "knowledge"
    method: str = "choice"
    weight: float = 0.4
    terminator: str = "\n\n"
    templates: tuple[str, ...] = ("Reference of {title}:\n", "Notes on {title}.\n")
    settings: tuple[PromptSetting, ...] = (PromptSetting(0, 0), PromptSetting(1, 0))

    def build(self, corpus: Corpus, rng: random.Random) -> list[Item]:
        trained = corpus.training_text()
        entries = [
            doc
            for doc in corpus.held_out
            if doc.kind == "api"
            and doc.title
            and word_jaccard(doc.text, trained.get(doc.title, "")) <= WORD_JACCARD_MAX
        ]
        items = [item for doc in entries if (item := self._item(doc, entries, trained, rng)) is not None]
        rng.shuffle(items)
        return items

    def _item(self, doc: Document, entries: list[Document], trained: dict[str, str], rng: random.Random) -> Item | None:
        title = doc.title or ""
        container, _ = container_and_name(title)

        def usable(other: Document) -> bool:
            ratio = len(other.text) / len(doc.text)
            return (
                other.title not in (None, title)
                and 1 / LENGTH_RATIO_MAX <= ratio <= LENGTH_RATIO_MAX
                and not gives_away(other.text, title)
                and word_jaccard(other.text, doc.text) < WORD_JACCARD_MAX
            )

        if gives_away(doc.text, title):
            return None
        near = [other for other in entries if container_and_name(other.title or "")[0] == container and usable(other)]
        chosen = [rng.choice(near).text] if near else []
        for other in rng.sample(entries, min(len(entries), 60)):
            if len(chosen) == 3:
                break
            if container_and_name(other.title or "")[0] != container and usable(other) and other.text not in chosen:
                chosen.append(other.text)
        if len(chosen) < 3:
            return None
        choices = [doc.text, *chosen]
        rng.shuffle(choices)
        return Item(
            item_id=item_id_of(self.name, title, doc.text),
            kind=self.name,
            dimension="knowledge",
            cluster=doc.group,
            half=half_of(doc.group),
            fields={"title": title},
            answer=doc.text,
            choices=tuple(choices),
            exposure="recall" if title in trained else "unseen",
            texts=(doc.text,),
        )


KIND = EntryChoice()
