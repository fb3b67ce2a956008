"""What the built-in domain publishes: the split between training text and benchmark material.

Owns: which text of an entry may be trained on (its first paragraph) and which is held out (every
second wording, every example, whole entries, half of the language reference).
Does not know: the broker (`jupiter publish` and the local supervisor send what this yields).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from jupiter.domains.python_stdlib.entries import Entry, paragraphs, read_entries
from jupiter.domains.python_stdlib.examples import read_sessions, read_topics
from jupiter.domains.python_stdlib.wordings import Wording, second_wordings
from jupiter.records import PublishedDocument

__all__ = ["published_documents"]

FIRST_CHARS_MIN, FIRST_CHARS_MAX = 25, 260
UNSEEN_PERCENT = 12
"""Share of the entries with a second wording that are held out wholly: nothing of them is trained on."""


@dataclass(frozen=True)
class _Described:
    entry: Entry
    first: str
    second: tuple[Wording, ...]


def _percentile(key: str) -> int:
    """Return 0–99 from a hash, the same on every machine."""
    return int(hashlib.sha256(f"jupiter:{key}".encode()).hexdigest(), 16) % 100


def _described() -> list[_Described]:
    tables: dict[str, dict[str, str]] = {}
    twins: dict[str, dict[str, str]] = {}
    found: list[_Described] = []
    firsts: set[str] = set()
    for entry in read_entries():
        prose = paragraphs(entry.docstring)
        if not prose or not FIRST_CHARS_MIN <= len(prose[0]) <= FIRST_CHARS_MAX or prose[0].lower() in firsts:
            continue
        firsts.add(prose[0].lower())
        found.append(_Described(entry, prose[0], tuple(second_wordings(entry, prose[0], tables, twins))))
    return found


def _order(described: _Described) -> tuple[bool, str]:
    """Entries with a second wording first (they can be examined), then by a hash."""
    title = described.entry.title
    return (not described.second, hashlib.sha256(title.encode()).hexdigest())


def _entry_documents(described: _Described) -> Iterator[PublishedDocument]:
    entry = described.entry
    unseen = bool(described.second) and _percentile(entry.title) < UNSEEN_PERCENT
    yield PublishedDocument(
        text=described.first,
        source=f"python:{entry.title}.__doc__#first",
        title=entry.title,
        kind="api",
        group=entry.module,
        split="held_out" if unseen else "training",
    )
    for number, wording in enumerate(described.second):
        yield PublishedDocument(
            text=wording.text,
            source=f"python:{entry.title}.__doc__#{wording.place}{number}",
            title=entry.title,
            kind="api",
            group=entry.module,
            split="held_out",
        )


def published_documents(*, entries_max: int | None = None) -> Iterator[PublishedDocument]:
    """Yield the domain's documents in a fixed order; `entries_max` limits the entries, not the rest.

    A text that stands at several entries is published once, for the first of them: a document is its text.
    """
    seen: set[str] = set()
    for document in _all_documents(entries_max):
        folded = " ".join(document.text.lower().split())
        if folded not in seen:
            seen.add(folded)
            yield document


def _all_documents(entries_max: int | None) -> Iterator[PublishedDocument]:
    for described in sorted(_described(), key=_order)[:entries_max]:
        yield from _entry_documents(described)
    for session in read_sessions():
        yield PublishedDocument(
            text=session.text,
            source=f"python:{session.owner}.__doc__#example",
            title=session.owner,
            kind="example",
            group=session.module,
            split="held_out",
        )
    for topic, text in read_topics():
        yield PublishedDocument(
            text=text,
            source=f"pydoc_data.topics#{topic}",
            title=None,
            kind="text",
            group=f"topic:{topic}",
            split="held_out",
        )
