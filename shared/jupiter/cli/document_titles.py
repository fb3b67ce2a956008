"""What a file is about, in its own words: the first heading, else the name of the file.

Owns: reading a title out of a text. Does not know: files (`document_files`), nor what a title is asked for.
"""

from __future__ import annotations

import re
from pathlib import PurePath

__all__ = ["title_of"]

TITLE_CHARS_MAX = 200
"""A longer line is a sentence that happens to stand where a heading would."""
LINES_READ_MAX = 200
"""A heading further down names a part, not the whole."""
_MARKED_UP = frozenset({".md", ".markdown", ".rst"})
_FRONT_MATTER_TITLE = re.compile(r"title\s*:\s*(.+)")
_HASHES = re.compile(r" {0,3}#{1,6}\s+(.+?)(?:\s+#+)?\s*")
_UNDERLINE = re.compile(r"([=\-~^*+\"'#])\1{2,}\s*")
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_MARKS = re.compile(r"[`*]+|<[^>]+>|\{#[^}]*\}")


def title_of(path: PurePath, text: str) -> str:
    """Return the title of a file's text. Code and plain text go by the name of the file: a `#` there is no heading."""
    heading = _heading(text.splitlines()[:LINES_READ_MAX]) if path.suffix.lower() in _MARKED_UP else None
    return heading or path.stem.replace("_", " ").replace("-", " ").strip() or path.name


def _heading(lines: list[str]) -> str | None:
    """Return the front matter's title, else the first heading, with its marks taken away."""
    if lines and lines[0].strip() == "---" and "---" in (line.strip() for line in lines[1:]):
        end = next(number for number, line in enumerate(lines[1:], start=1) if line.strip() == "---")
        for line in lines[1:end]:
            if (found := _FRONT_MATTER_TITLE.fullmatch(line.strip())) and (title := _plain(found.group(1))):
                return title
        lines = lines[end + 1 :]
    fenced = False
    for number, line in enumerate(lines):
        if line.lstrip().startswith(("```", "~~~")):
            fenced = not fenced
        if fenced:
            continue
        hashes = _HASHES.fullmatch(line)
        below = lines[number + 1] if number + 1 < len(lines) else ""
        underlined = _UNDERLINE.fullmatch(below) and not _UNDERLINE.fullmatch(line) and _standing_alone(lines, number)
        title = _plain(hashes.group(1) if hashes else line if underlined else "")
        if title:
            return title
    return None


def _standing_alone(lines: list[str], number: int) -> bool:
    """Say whether nothing but an overline or a blank line stands above: else the rule closes a paragraph or table."""
    above = lines[number - 1] if number else ""
    return not above.strip() or _UNDERLINE.fullmatch(above) is not None


def _plain(heading: str) -> str:
    """Return a heading without links, emphasis and quotes around it; empty where it is none."""
    text = " ".join(_MARKS.sub("", _LINK.sub(r"\1", heading)).split()).strip("\"'")
    return text if any(map(str.isalnum, text)) and len(text) <= TITLE_CHARS_MAX else ""
