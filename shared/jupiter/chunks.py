"""How a document is cut into passages.

Owns: `chunk`, a pure function that every service calls alike, so that (document, index) always names the same text.
Does not know: where documents are stored, nor what is made from a passage.

The cut points are tried from the kindest to the bluntest: between paragraphs, lines, sentences, words, characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from jupiter.records import Chunk, Document

__all__ = ["chunk"]

# Each pattern matches the gap after which a passage may end; the last resort cuts anywhere.
_CUTS = (re.compile(r"\n\s*\n"), re.compile(r"\n"), re.compile(r"(?<=[.!?])\s+"), re.compile(r"\s+"))


def chunk(document: Document, chars_max: int) -> tuple[Chunk, ...]:
    """Cut the text into passages of at most `chars_max` characters, in order; nothing but blank space is left out.

    Neighbouring paragraphs share a passage while they fit, so a short document is one chunk. The result is never
    empty unless the text is blank.
    """
    if chars_max < 1:
        raise ValueError(f"chars_max is {chars_max}; a passage needs at least one character")
    return tuple(
        Chunk(document_id=document.document_id, index=index, text=text, title=document.title)
        for index, text in enumerate(_passages(document.text, chars_max, _CUTS))
    )


def _passages(text: str, chars_max: int, cuts: tuple[re.Pattern[str], ...]) -> Iterator[str]:
    """Yield stripped passages. Pieces between cuts are joined greedily; a piece that is too long is cut finer."""
    if len(_trim(text)) <= chars_max:
        yield from filter(None, [_trim(text)])
        return
    if not cuts:
        for start in range(0, len(text), chars_max):
            yield from filter(None, [_trim(text[start : start + chars_max])])
        return
    pending = ""
    for piece in _pieces(text, cuts[0]):
        if pending and len(_trim(pending + piece)) <= chars_max:
            pending += piece
            continue
        if pending:
            yield from _passages(pending, chars_max, cuts[1:])
        pending = piece
    yield from _passages(pending, chars_max, cuts[1:])


def _pieces(text: str, cut: re.Pattern[str]) -> Iterator[str]:
    """Split after every match, keeping the gap with the piece before it: the pieces concatenate to `text`."""
    start = 0
    for match in cut.finditer(text):
        yield text[start : match.end()]
        start = match.end()
    if start < len(text):
        yield text[start:]


def _trim(text: str) -> str:
    """Drop blank lines around the passage; keep the first line's indentation, which is meaning in code."""
    return re.sub(r"\A(?:[^\S\n]*\n)+", "", text).rstrip()
