"""Accuracy: which container (module, package) a documented name lives in, by exact answer.

The question holds the bare name only. Names that several containers share, or that spell their
container (`json.JSONDecoder`), are left out.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from jupiter.evaluator.items.item import Corpus, Item, PromptSetting, half_of, item_id_of
from jupiter.evaluator.items.titles import ambiguous_names, container_and_name


@dataclass(frozen=True)
class ContainerFact:
    name: str = "container_fact"
    dimension: str = "accuracy"
    method: str = "exact"
    weight: float = 0.125
    terminator: str = "\n"
    templates: tuple[str, ...] = (
        "Name: {name}\nFound in module:",
        "Q: To use {name}, which module has to be imported?\nA:",
    )
    settings: tuple[PromptSetting, ...] = (PromptSetting(0, 3), PromptSetting(1, 3), PromptSetting(0, 8))

    def build(self, corpus: Corpus, rng: random.Random) -> list[Item]:
        trained = corpus.training_text()
        groups = {doc.title: doc.group for doc in corpus.held_out if doc.kind == "api" and doc.title}
        ambiguous = ambiguous_names([*trained, *groups])
        items: list[Item] = []
        for title, group in groups.items():
            container, name = container_and_name(title)
            flat = name.lower().replace("_", "")
            if not container or name.lower() in ambiguous or container.rpartition(".")[2].lower() in flat:
                continue
            items.append(
                Item(
                    item_id=item_id_of(self.name, title),
                    kind=self.name,
                    dimension="accuracy",
                    cluster=group,
                    half=half_of(group),
                    fields={"name": name},
                    answer=f" {container}",
                    exposure="recall" if title in trained else "unseen",
                )
            )
        rng.shuffle(items)
        return items


KIND = ContainerFact()
