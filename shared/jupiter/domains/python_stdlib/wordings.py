"""Second wordings: what other places say about an entry whose first paragraph may be trained on.

Owns: collecting them and the rules that keep them independent of the training wording.
Does not know: how they become documents or questions.
Sources: later paragraphs of the docstring, the one-line tables in module docstrings, and the
docstrings of the Python twins of C functions.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass

from jupiter.domains.python_stdlib.entries import Entry, paragraphs, source_docstrings
from jupiter.domains.python_stdlib.modules import import_quietly

__all__ = ["Wording", "second_wordings", "shares_name", "word_jaccard"]

WORD_JACCARD_MAX = 0.6
"""Above it a second wording counts as the same sentence (DESIGN §9)."""
CHARS_MIN, CHARS_MAX = 40, 320

_TWINS = {"decimal": "_pydecimal", "io": "_pyio"}
_TABLE_LINE = re.compile(r"^\s*(?:def |class )?(\w+)(?:\([^)]*\))?\s*(?:--|:|-|\s{2,})\s*(\S.{24,})$", re.MULTILINE)


@dataclass(frozen=True)
class Wording:
    """A description of an entry from another place than its first paragraph."""

    text: str
    place: str
    """`paragraph`, `table` or `twin`."""


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def word_jaccard(left: str, right: str) -> float:
    """Return the share of distinct words that two texts have in common, 0 to 1."""
    a, b = _words(left), _words(right)
    return len(a & b) / len(a | b) if a | b else 0.0


def shares_name(text: str, entry_name: str) -> bool:
    """Say whether the text gives the name away (case and punctuation ignored)."""
    plain = re.sub(r"[^a-z0-9]", "", entry_name.lower())
    return len(plain) > 1 and (
        plain in re.sub(r"[^a-z0-9]", "", text.lower()) if len(plain) > 3 else plain in _words(text)
    )


def _table_lines(module_name: str) -> dict[str, str]:
    module = import_quietly(module_name)
    docstring = inspect.getdoc(module) or "" if module else ""
    return {name: text.strip() for name, text in _TABLE_LINE.findall(docstring)}


def _first_sentences(text: str) -> str:
    """Cut to whole sentences within CHARS_MAX; empty where even the first is longer."""
    if len(text) <= CHARS_MAX:
        return text
    cut = [match.end() for match in re.finditer(r"[.!?](?=\s)", text) if match.end() <= CHARS_MAX]
    return text[: cut[-1]] if cut else ""


def second_wordings(
    entry: Entry, first: str, tables: dict[str, dict[str, str]], twins: dict[str, dict[str, str]]
) -> list[Wording]:
    """Return the usable second wordings of `entry`; `tables` and `twins` cache what modules say."""
    if entry.module not in tables:
        tables[entry.module] = _table_lines(entry.module)
        twin = import_quietly(_TWINS.get(entry.module, entry.module))
        twins[entry.module] = source_docstrings(twin) if twin else {}
    found: list[Wording] = []
    line = tables[entry.module].get(entry.name)
    if line:
        found.append(Wording(line, "table"))
    twin_text = paragraphs(twins[entry.module].get(entry.name, ""))
    if twin_text:
        found.append(Wording(twin_text[0], "twin"))
    found.append(Wording(" ".join(paragraphs(entry.docstring)[1:]), "paragraph"))
    kept: list[Wording] = []
    for wording in found:
        text = _first_sentences(wording.text)
        if len(text) < CHARS_MIN or shares_name(text, entry.name) or word_jaccard(text, first) > WORD_JACCARD_MAX:
            continue
        kept.append(Wording(text, wording.place))
    return kept
