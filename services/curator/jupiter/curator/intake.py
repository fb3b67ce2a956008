"""A published document, from raw bytes to the record that is stored.

Owns: the checks with the reasons a publisher reads, normalisation, the document's id, the split.
Does not know: the store and the bus (`handlers`). Pure: the same bytes give the same document or the same reason.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata

import ftfy
from pydantic import ValidationError

from jupiter.errors import Rejected
from jupiter.records import DOCUMENT_CHARS_MAX, Document, PublishedDocument, Split

__all__ = ["document_from", "normalised", "split_of"]

MESSAGE_BYTES_MAX = 6 * DOCUMENT_CHARS_MAX + 16_384
"""The longest text with every character escaped (`\\u0436`), and room for the other fields. The servers carry 8 MB."""
REASONS_MAX = 3
SEEN_CHARS_MAX = 60
# ftfy repairs mojibake, terminal escapes and control characters. What is content stays: `&lt;` in a manual about HTML,
# curly quotes, ligatures, full-width forms.
_FIXES = ftfy.TextFixerConfig(
    unescape_html=False, uncurl_quotes=False, fix_latin_ligatures=False, fix_character_width=False, explain=False
)


def normalised(text: str) -> str:
    """Return the text with its encoding repaired, in NFC, without trailing blanks or blank lines around it."""
    repaired = unicodedata.normalize("NFC", ftfy.fix_text(text, config=_FIXES))
    lines = "\n".join(line.rstrip() for line in repaired.split("\n"))
    return re.sub(r"\A\n+|\n+\Z", "", lines)


def split_of(group: str, held_out_fraction: float) -> Split:
    """Return the split of a group: a hash decides, so it never depends on what was published before."""
    place = int.from_bytes(hashlib.sha256(f"split:{group}".encode()).digest()[:8]) / 2**64
    return "held_out" if place < held_out_fraction else "training"


def document_from(data: bytes, *, domain: str, held_out_fraction: float) -> Document:
    """Return the document that a message publishes. Raises Rejected with a reason that names the field."""
    published = _parsed(data)
    text = normalised(published.text)
    if not text.strip():
        raise Rejected("field `text`: nothing is left of it after normalisation; publish the document's text")
    if len(text) > DOCUMENT_CHARS_MAX:
        raise Rejected(f"field `text`: {len(text)} characters after normalisation, the limit is {DOCUMENT_CHARS_MAX}")
    group = published.group or published.source
    return Document(
        document_id=hashlib.sha256(text.encode()).hexdigest(),
        domain=domain,
        text=text,
        source=published.source,
        title=published.title,
        kind=published.kind,
        group=group,
        split=split_of(group, held_out_fraction) if published.split == "auto" else published.split,
        license=published.license,
        metadata=published.metadata,
    )


def _parsed(data: bytes) -> PublishedDocument:
    if len(data) > MESSAGE_BYTES_MAX:
        raise Rejected(f"message: {len(data)} bytes, the limit is {MESSAGE_BYTES_MAX}; publish it in parts")
    try:
        data.decode()
    except UnicodeDecodeError as error:
        raise Rejected(f"message: not UTF-8, byte 0x{data[error.start]:02x} at {error.start}") from error
    try:
        return PublishedDocument.model_validate_json(data)
    except ValidationError as error:
        raise Rejected(_reason(error)) from error


def _reason(error: ValidationError) -> str:
    """Name the field, what was wrong and what was seen, for the first few problems."""
    problems: list[str] = []
    for problem in error.errors(include_url=False)[:REASONS_MAX]:
        field = ".".join(map(str, problem["loc"]))
        where = f"field `{field}`" if field else "message"
        seen = "" if problem["type"] in ("missing", "json_invalid") else f" (seen: {_short(problem['input'])})"
        problems.append(f"{where}: {problem['msg']}{seen}")
    left = error.error_count() - len(problems)
    return "; ".join(problems) + (f"; and {left} more" if left else "") + "; schema: docs/events.md"


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= SEEN_CHARS_MAX else f"{shown[:SEEN_CHARS_MAX]}…"
