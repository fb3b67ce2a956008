"""What a publisher gets: a document, or a reason that names the field."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupiter.curator.intake import document_from, normalised, split_of
from jupiter.errors import Rejected
from jupiter.records import DOCUMENT_CHARS_MAX, Document

GOOD: dict[str, Any] = {"text": "Open file and return a stream.", "source": "manual"}


def accept(data: bytes) -> Document:
    return document_from(data, domain="python_stdlib", held_out_fraction=0.2)


def message(**changes: Any) -> bytes:
    return json.dumps(GOOD | changes).encode()


def test_the_text_decides_the_id_and_the_source_is_the_group() -> None:
    first, again = accept(message()), accept(message(text="Open file and return a stream.  \r\n", source="other"))
    assert first.document_id == again.document_id
    assert (first.group, again.group) == ("manual", "other")
    assert first.kind == "text"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", ["message", "JSON"]),
        (b"{not json", ["message", "JSON"]),
        (b"[]", ["message"]),
        (b'{"text": "\xff"}', ["UTF-8", "0xff"]),
        (json.dumps({"text": "a"}).encode(), ["field `source`", "required"]),
        (message(text=7), ["field `text`", "seen: 7"]),
        (message(text=""), ["field `text`"]),
        (message(text=" \n\t "), ["field `text`", "nothing is left"]),
        (message(text="x" * 1_000_001), ["field `text`", "1000000"]),
        (message(kind="poem"), ["field `kind`", "'poem'"]),
        (message(split="test"), ["field `split`"]),
        (message(titel="x"), ["field `titel`"]),
        (message(metadata={"a": 1}), ["field `metadata.a`"]),
        (b'{"text": "\\ud800", "source": "x"}', ["JSON"]),
    ],
)
def test_a_malformed_message_is_rejected_with_the_field_in_the_reason(data: bytes, words: list[str]) -> None:
    with pytest.raises(Rejected) as rejected:
        accept(data)
    for word in words:
        assert word in str(rejected.value)


def test_the_longest_text_may_come_with_every_character_escaped() -> None:
    data = message(text="ж" * DOCUMENT_CHARS_MAX)
    assert len(data) > 6 * DOCUMENT_CHARS_MAX
    assert len(accept(data).text) == DOCUMENT_CHARS_MAX


def test_mojibake_is_repaired_and_code_and_html_stay_as_they_are() -> None:
    assert normalised("schÃ¶n â€” fine") == "schön — fine"
    code = 'if a &lt; b:\n    print("“quoted”", x &amp; y)'
    assert normalised(code) == code
    assert normalised("\n\n    indented\n\n") == "    indented"


@given(st.text(min_size=1, max_size=300))
def test_any_text_is_stored_normalised_or_rejected_by_name(text: str) -> None:
    try:
        document = accept(message(text=text))
    except Rejected as error:
        assert "`text`" in str(error) or "message" in str(error)  # noqa: PT017
    else:
        assert normalised(document.text) == document.text
        assert document.text.strip()


def test_the_split_is_stable_explicit_where_given_and_near_the_fraction() -> None:
    assert accept(message(split="held_out")).split == "held_out"
    assert accept(message(split="training")).split == "training"
    assert accept(message(group="g")).split == split_of("g", 0.2)
    held_out = sum(split_of(f"group {number}", 0.2) == "held_out" for number in range(2_000))
    assert 330 < held_out < 470


@given(st.text(max_size=50), st.floats(0.01, 0.5), st.floats(0.5, 0.99))
def test_raising_the_fraction_only_moves_groups_to_the_benchmark(group: str, low: float, high: float) -> None:
    if split_of(group, low) == "held_out":
        assert split_of(group, high) == "held_out"
