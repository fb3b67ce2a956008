"""One question of a benchmark, and what every kind of item must offer.

Owns: the record, the corpus an item is built from, the registry that finds the kinds.
Does not know: models (`likelihood`) nor how many items of each kind are wanted (`benchmark`).
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from jupiter.records import Document, Record

__all__ = [
    "Corpus",
    "Dimension",
    "Half",
    "Item",
    "ItemKind",
    "Method",
    "PromptSetting",
    "SessionRunner",
    "half_of",
    "item_id_of",
]

Dimension = Literal["accuracy", "coherence", "knowledge"]
Half = Literal["development", "confirmation"]
Method = Literal["exact", "choice", "health"]
"""`exact`: greedy output equals the answer. `choice`: highest likelihood per byte. `health`: own generation."""

SessionRunner = Callable[[Document, Sequence[str]], Sequence[str | None]]
"""Runs the statements of one document's session in the sandbox; per statement its output, None where it failed."""


class Item(Record):
    """A question with its answer, frozen in the benchmark."""

    item_id: str
    kind: str
    dimension: Dimension
    cluster: str
    """The document group: items of one cluster are resampled together."""
    half: Half
    fields: Mapping[str, str]
    """What the prompt templates fill in."""
    answer: str
    choices: tuple[str, ...] = ()
    """For `choice` items, the answer among its distractors."""
    exposure: Literal["recall", "unseen"] = "unseen"
    """`recall`: the training documents hold this fact in other words. `unseen`: they do not."""
    texts: tuple[str, ...] = ()
    """What decontamination must find in no training sample."""


@dataclass(frozen=True)
class PromptSetting:
    """A template of one kind and how many worked examples stand before the question."""

    template: int
    shots: int


@dataclass(frozen=True)
class Corpus:
    """The documents a benchmark is built from, and the sandbox that verifies examples."""

    held_out: tuple[Document, ...]
    training: tuple[Document, ...]
    run_session: SessionRunner | None

    def training_text(self) -> dict[str, str]:
        """Return title to trained text, for the `api` documents that may be trained on."""
        return {doc.title: doc.text for doc in self.training if doc.kind == "api" and doc.title}


class ItemKind(Protocol):
    """What a module under `items/` offers as `KIND`. Adding a file there adds a kind; nothing else changes."""

    name: str
    dimension: Dimension
    method: Method
    weight: float
    """Share of its dimension. Kinds that find no documents give theirs to the others of the dimension."""
    templates: tuple[str, ...]
    """`str.format` templates of the question; `fields` fill them, the answer follows directly."""
    terminator: str
    """What ends an answer in a worked example."""
    settings: tuple[PromptSetting, ...]
    """What prompt tuning chooses from."""

    def build(self, corpus: Corpus, rng: random.Random) -> list[Item]:
        """Return every usable item, in an order drawn by `rng`."""
        ...


def item_id_of(kind: str, *parts: str) -> str:
    """Return a stable id: the kind and a hash of what is asked."""
    return f"{kind}-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:16]}"


def half_of(cluster: str) -> Half:
    """Whole clusters fall into one half, by a hash: about three in eight into the development half.

    It is given one item in four; more clusters than that leave a small corpus enough of them there.
    """
    return "development" if hashlib.sha256(f"half:{cluster}".encode()).digest()[0] % 8 < 3 else "confirmation"
