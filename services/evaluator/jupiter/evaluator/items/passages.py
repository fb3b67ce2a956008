"""Cutting prose documents into passages of whole paragraphs.

Owns: the cut. Does not know: what is asked about a passage.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["paragraphs", "passages"]

PASSAGE_CHARS_MIN, PASSAGE_CHARS_MAX = 120, 420


def paragraphs(text: str) -> Iterator[str]:
    """Yield the prose paragraphs on one line each, however long; lists, tables and code blocks are left out."""
    for block in re.split(r"\n\s*\n", text):
        indented = sum(line.startswith("   ") for line in block.split("\n"))
        line = " ".join(block.split())
        letters = sum(character.isalpha() or character == " " for character in line)
        if (
            indented > block.count("\n") / 2 + 0.5
            or not line
            or letters / len(line) < 0.8
            or "::=" in line
            or ">>>" in line
        ):
            continue
        if len(line) >= PASSAGE_CHARS_MIN:
            yield line


def passages(text: str) -> list[str]:
    """Return consecutive prose passages, one per paragraph: whole sentences from its beginning."""
    found: list[str] = []
    for line in paragraphs(text):
        if len(line) <= PASSAGE_CHARS_MAX:
            found.append(line)
            continue
        ends = [m.end() for m in re.finditer(r"[.!?](?=\s)", line) if PASSAGE_CHARS_MIN <= m.end() <= PASSAGE_CHARS_MAX]
        if ends:
            found.append(line[: ends[-1]])
    return found
