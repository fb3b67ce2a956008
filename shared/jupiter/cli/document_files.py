"""Turn files of a user into documents to publish.

Owns: which files are read, how, and why one is refused. Does not know: where the documents go.

Text, Markdown and Python files are one document each, and have the title that they give themselves. A `.jsonl` file
holds one document a line, either as `docs/events.md` describes it or with just a `text`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from jupiter.cli.document_titles import title_of
from jupiter.records import DOCUMENT_CHARS_MAX, PublishedDocument

__all__ = ["FILE_BYTES_MAX", "SUFFIXES", "Refused", "Skipped", "read_documents"]

SUFFIXES = frozenset({".txt", ".text", ".md", ".markdown", ".rst", ".py", ".jsonl"})
FILE_BYTES_MAX = 4 * DOCUMENT_CHARS_MAX
JSONL_BYTES_MAX = 4 << 30
# A line is a document as JSON: every character may be escaped to six.
LINE_BYTES_MAX = 6 * DOCUMENT_CHARS_MAX + 10_000


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A file or line that is not a document, and why."""

    where: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A file inside a directory that is of no kind that we read."""

    where: str


Outcome = PublishedDocument | Refused | Skipped


def read_documents(paths: Iterable[Path], *, defaults: dict[str, Any]) -> Iterator[Outcome]:
    """Yield a document, or why there is none, for everything under `paths`; `defaults` fill absent fields."""
    for path in paths:
        if path.is_dir():
            for file in _files_under(path):
                if file.suffix.lower() in SUFFIXES:
                    yield from _read_file(file, defaults)
                else:
                    yield Skipped(where=str(file))
        elif path.suffix.lower() in SUFFIXES:
            yield from _read_file(path, defaults)
        else:
            known = " ".join(sorted(SUFFIXES))
            yield Refused(where=str(path), reason=f"unknown kind {path.suffix or '(no suffix)'!r}; known: {known}")


def _files_under(directory: Path) -> Iterator[Path]:
    """Yield files in a stable order, without what is hidden and without following links to directories."""
    for path in sorted(directory.iterdir()):
        if path.name.startswith(".") or path.name == "__pycache__":
            continue
        if path.is_dir():
            if not path.is_symlink():
                yield from _files_under(path)
        elif path.is_file():
            yield path


def _read_file(path: Path, defaults: dict[str, Any]) -> Iterator[Outcome]:
    size_max = JSONL_BYTES_MAX if path.suffix.lower() == ".jsonl" else FILE_BYTES_MAX
    try:
        size = path.stat().st_size
        if size > size_max:
            yield Refused(where=str(path), reason=f"{size:,} bytes; the limit is {size_max:,}: split it")
        elif path.suffix.lower() == ".jsonl":
            yield from _read_lines(path, defaults)
        else:
            text = path.read_text(encoding="utf-8-sig")
            yield _document(str(path), {"source": str(path), "title": title_of(path, text), **defaults, "text": text})
    except OSError as error:
        yield Refused(where=str(path), reason=error.strerror or str(error))
    except UnicodeDecodeError as error:
        yield Refused(where=str(path), reason=f"not UTF-8: byte {error.start} is {error.object[error.start]:#04x}")


def _read_lines(path: Path, defaults: dict[str, Any]) -> Iterator[Outcome]:
    with path.open("rb") as stream:
        number = 0
        while line := stream.readline(LINE_BYTES_MAX + 1):
            number += 1
            where = f"{path}:{number}"
            if len(line) > LINE_BYTES_MAX:
                yield Refused(where=where, reason=f"the line is longer than {LINE_BYTES_MAX:,} bytes")
                while line and not line.endswith(b"\n"):
                    line = stream.readline(LINE_BYTES_MAX)
            elif line.strip():
                yield _read_line(where, line, defaults)


def _read_line(where: str, line: bytes, defaults: dict[str, Any]) -> Outcome:
    try:
        value = json.loads(line)
    except ValueError as error:
        return Refused(where=where, reason=f"not JSON: {error}")
    if not isinstance(value, dict):
        return Refused(where=where, reason=f"a JSON object is needed, this is {type(value).__name__}")
    return _document(where, {"source": where, **defaults, **value})


def _document(where: str, fields: dict[str, Any]) -> PublishedDocument | Refused:
    if not str(fields.get("text", "")).strip():
        return Refused(where=where, reason="there is no text")
    try:
        return PublishedDocument.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        return Refused(where=where, reason=f"{field}: {first['msg']}")
