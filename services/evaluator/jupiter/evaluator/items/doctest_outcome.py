"""Accuracy: what an interactive example prints, by exact answer.

Only examples whose documented output is what the sandbox really printed become items: the answer
is an executed outcome, not a claim of the documentation.
"""

from __future__ import annotations

import doctest
import random
from collections.abc import Iterator
from dataclasses import dataclass

from jupiter.evaluator.items.item import Corpus, Item, PromptSetting, SessionRunner, half_of, item_id_of
from jupiter.records import Document

CONTEXT_CHARS_MAX = 500
OUTPUT_CHARS_MAX = 100
OUTPUT_LINES_MAX = 2


def _verified(doc: Document, run_session: SessionRunner) -> Iterator[tuple[str, str, str]]:
    """Yield (earlier examples, this statement, its verified output)."""
    try:
        examples = doctest.DocTestParser().get_examples(doc.text)
    except ValueError:
        return
    if not any(example.want for example in examples):
        return
    outputs = run_session(doc, [example.source for example in examples])
    context = ""
    for example, output in zip(examples, outputs, strict=True):
        asked = ">>> " + "\n... ".join(example.source.rstrip("\n").split("\n"))
        want = example.want.rstrip("\n")
        printable = 0 < len(want) <= OUTPUT_CHARS_MAX and want.count("\n") < OUTPUT_LINES_MAX and " at 0x" not in want
        if printable and output == example.want and len(context) + len(asked) <= CONTEXT_CHARS_MAX:
            yield context, asked, want
        context += f"{asked}\n{example.want}"


@dataclass(frozen=True)
class DoctestOutcome:
    name: str = "doctest_outcome"
    dimension: str = "accuracy"
    method: str = "exact"
    weight: float = 0.25
    terminator: str = "\n\n"
    templates: tuple[str, ...] = ("{context}{asked}\n",)
    settings: tuple[PromptSetting, ...] = (PromptSetting(0, 3), PromptSetting(0, 0))

    def build(self, corpus: Corpus, rng: random.Random) -> list[Item]:
        if corpus.run_session is None:
            return []
        items: dict[str, Item] = {}
        for doc in corpus.held_out:
            if doc.kind != "example":
                continue
            for context, asked, want in _verified(doc, corpus.run_session):
                item_id = item_id_of(self.name, context, asked)
                items[item_id] = Item(
                    item_id=item_id,
                    kind=self.name,
                    dimension="accuracy",
                    cluster=doc.group,
                    half=half_of(doc.group),
                    fields={"context": context, "asked": asked},
                    answer=want,
                    texts=(f"{asked}\n{want}",),
                )
        ordered = list(items.values())
        rng.shuffle(ordered)
        return ordered


KIND = DoctestOutcome()
