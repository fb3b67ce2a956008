"""Cutting prose documents into passages of whole paragraphs.

Owns: the cut. Does not know: what is asked about a passage.
"""

from __future__ import annotations

import re

__all__ = ["passages"]

PASSAGE_CHARS_MIN, PASSAGE_CHARS_MAX = 120, 420


def passages(text: str) -> list[str]:
    """Return consecutive prose passages on one line each; lists, tables and code blocks are left out."""
    found: list[str] = []
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
        if len(line) < PASSAGE_CHARS_MIN:
            continue
        if len(line) > PASSAGE_CHARS_MAX:
            ends = [
                m.end() for m in re.finditer(r"[.!?](?=\s)", line) if PASSAGE_CHARS_MIN <= m.end() <= PASSAGE_CHARS_MAX
            ]
            if not ends:
                continue
            line = line[: ends[-1]]
        found.append(line)
    return found
