"""Reading titles such as `package.module.name`, and whether a text gives one away.

Owns: the split of a title and the lexical give-away rule.
Does not know: items.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

__all__ = ["ambiguous_names", "container_and_name", "gives_away", "name_parts", "word_jaccard"]

PART_CHARS_MIN = 4
"""Shorter parts of a name (`get`, `is`) occur by chance and tell little."""


def container_and_name(title: str) -> tuple[str, str]:
    """Return (`shutil`, `copytree`) for `shutil.copytree`; the container is empty where there is no dot."""
    container, _, name = title.rpartition(".")
    return container, name


def name_parts(title: str) -> set[str]:
    """Return the lower-case words of which the last component of a title is made."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", container_and_name(title)[1])
    return {word.lower() for word in words}


def gives_away(text: str, title: str) -> bool:
    """Say whether the text holds the name itself or a telling part of it (`tree` for `copytree`)."""
    flat = re.sub(r"[^a-z0-9]", "", text.lower())
    name = re.sub(r"[^a-z0-9]", "", container_and_name(title)[1].lower())
    if len(name) >= PART_CHARS_MIN and name in flat:
        return True
    words = re.findall(r"[a-z0-9]+", text.lower())
    if name in words or any(len(word) >= PART_CHARS_MIN and word in name for word in words):
        return True
    parts = [part for part in name_parts(title) if len(part) >= PART_CHARS_MIN]
    return any(word.startswith(part[:5]) for part in parts for word in words)


def ambiguous_names(titles: Iterable[str]) -> set[str]:
    """Return the last components that more than one title has (`open`, `join`)."""
    counts = Counter(container_and_name(title)[1].lower() for title in set(titles))
    return {name for name, count in counts.items() if count > 1}


def word_jaccard(left: str, right: str) -> float:
    """Return the share of distinct words that two texts have in common, 0 to 1."""
    a, b = set(re.findall(r"\w+", left.lower())), set(re.findall(r"\w+", right.lower()))
    return len(a & b) / len(a | b) if a | b else 0.0
