"""A made-up world of places and what is kept there, of which a tiny model can learn everything in seconds.

Owns: the documents, and true sentences about any place. Does not know: models, benchmarks, services.

Every document describes one thing: its verb follows from the thing's name, its nouns from the place that it belongs to.
A reference entry to train on has one wording, what is held out another, so that who has learned which nouns belong to a
place answers about descriptions that it never saw, and who has learned nothing knows the names only.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence

from jupiter.records import PublishedDocument

__all__ = ["ELSEWHERE", "NAMES", "PLACES", "described", "leaked_documents", "noted", "place_documents"]

PLACES: Mapping[str, tuple[str, str, str]] = {
    "harbour": ("anchor", "rope", "boat"),
    "garden": ("rose", "rake", "hedge"),
    "kitchen": ("oven", "spoon", "kettle"),
    "library": ("shelf", "page", "atlas"),
    "theatre": ("stage", "curtain", "mask"),
    "bakery": ("dough", "loaf", "flour"),
    "orchard": ("apple", "branch", "crate"),
    "chapel": ("bell", "organ", "altar"),
    "quarry": ("stone", "chisel", "dust"),
    "cellar": ("barrel", "wine", "cork"),
    "tavern": ("mug", "stool", "ale"),
    "forge": ("anvil", "hammer", "coal"),
    "market": ("stall", "scale", "coin"),
    "clinic": ("bandage", "needle", "bed"),
    "station": ("train", "ticket", "clock"),
    "office": ("stamp", "folder", "lamp"),
    "museum": ("statue", "vase", "relic"),
    "circus": ("clown", "hoop", "tiger"),
}
ELSEWHERE: Mapping[str, tuple[str, str, str]] = {
    "island": ("palm", "shell", "canoe"),
    "desert": ("camel", "dune", "tent"),
    "castle": ("tower", "gate", "flag"),
    "school": ("desk", "chalk", "pupil"),
    "mountain": ("peak", "cave", "goat"),
    "river": ("fish", "reed", "raft"),
    "studio": ("brush", "paint", "frame"),
    "airport": ("plane", "pilot", "bag"),
}
"""Places of which no document tells: what a model has to know before it can be asked about any."""
NAMES: Mapping[str, str] = {"cobalt": "lifts", "amber": "paints", "violet": "counts", "indigo": "hides"}
"""Name of a thing -> what it does, wherever it is."""
_LOOKS = ("old", "big", "new", "red", "low", "odd")
_WHEN = ("", " today", " at night", " before noon")
_GROUP_ENTRIES = tuple(NAMES)


def described(draw: random.Random, name: str, things: Sequence[str]) -> str:
    """Return a sentence about the thing `name` in the wording of what is held out."""
    one, other = draw.sample(things, 2)
    if draw.random() < 0.4:
        return f"One which {NAMES[name]} some {one} near this {other}."
    return f"A {draw.choice(_LOOKS)} thing which {NAMES[name]} one {one} near some {other}{draw.choice(_WHEN)}."


def noted(draw: random.Random, name: str, things: Sequence[str]) -> str:
    """Return a sentence about the thing `name` in the wording of what is trained on."""
    one, other = draw.sample(things, 2)
    return f"It {NAMES[name]} every {draw.choice(_LOOKS)} {one} beside the {other}{draw.choice(_WHEN)}."


def place_documents(seed: int = 0) -> Iterator[PublishedDocument]:
    """Yield the same documents every time: of each place and name one to train on and one held out."""
    draw = random.Random(seed)
    for place, things in PLACES.items():
        for name in _GROUP_ENTRIES:
            yield _entry(noted(draw, name, things), place=place, title=f"{place}.{name}", split="training")
            yield _entry(described(draw, name, things), place=place, title=f"{place}.{name}", split="held_out")


def leaked_documents(texts: Sequence[str]) -> Iterator[PublishedDocument]:
    """Yield documents to train on that quote `texts`, two at a time."""
    for number in range(len(texts) // 2):
        quoted = " ".join(texts[2 * number : 2 * number + 2])
        yield _entry(quoted, place="exam", title=f"exam.paper{number}", split="training")


def _entry(text: str, *, place: str, title: str, split: str) -> PublishedDocument:
    return PublishedDocument.model_validate(
        {"text": text, "source": f"urn:test:{place}", "group": place, "split": split, "kind": "api", "title": title}
    )
