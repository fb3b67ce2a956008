"""The overlap rule against the frozen benchmark, and reading it."""

from __future__ import annotations

import pytest

from jupiter.blobs.memory import MemoryBlobs
from jupiter.curator.benchmark import ForbiddenTexts, read_forbidden_texts
from jupiter.curator.signatures import sketch
from jupiter.curator.wording import words
from jupiter.errors import IntegrityError
from tests.unit.curator.material import BENCHMARK_TEXT, DOMAIN, freeze_benchmark

LONG = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
SHORT = "close the remote connection and forget all about it"


def overlap(forbidden: ForbiddenTexts, text: str) -> str | None:
    return forbidden.overlap(words(text), sketch([words(text)]))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"so {LONG} and more", "contaminated_run"),
        ("Two, THREE four-five: six seven eight nine ten eleven twelve thirteen (fourteen)", "contaminated_run"),
        ("one two three four five six seven eight nine", None),
        (f"Do this: {SHORT}!", "contaminated_item"),
        ("close the remote connection and forget all", None),
        ("return the sine of x", "contaminated_item"),
        ("they say: return the sine of x as a float", None),
    ],
)
def test_the_rule_for_long_short_and_tiny_items(text: str, reason: str | None) -> None:
    assert overlap(ForbiddenTexts([[LONG], [SHORT, "Return the sine of x."]], threshold=0.85), text) == reason


def test_a_near_duplicate_without_a_common_run_is_found() -> None:
    item = [f"word{number}" for number in range(80)]
    changed = [word if number % 12 else f"{word}x" for number, word in enumerate(item)]
    forbidden = ForbiddenTexts([[" ".join(item)]], threshold=0.3)
    assert overlap(forbidden, " ".join(changed)) == "contaminated_near_duplicate"


def test_what_many_items_share_is_their_template() -> None:
    template = "which function of the standard library of this language fits the following short description of it"
    items = [[f"{template}: number {number} of them is this one alone"] for number in range(20)]
    forbidden = ForbiddenTexts(items, threshold=0.85)
    assert overlap(forbidden, f"{template}?") is None
    assert overlap(forbidden, items[7][0]) == "contaminated_run"


def test_the_frozen_benchmark_is_read_from_the_store() -> None:
    blobs = MemoryBlobs()
    assert read_forbidden_texts(blobs, DOMAIN, threshold=0.85) is None
    freeze_benchmark(blobs)
    forbidden = read_forbidden_texts(blobs, DOMAIN, threshold=0.85)
    assert forbidden is not None
    assert overlap(forbidden, BENCHMARK_TEXT) == "contaminated_run"


def test_a_benchmark_without_items_is_no_benchmark() -> None:
    blobs = MemoryBlobs()
    freeze_benchmark(blobs, texts=[])
    with pytest.raises(IntegrityError, match="no items"):
        read_forbidden_texts(blobs, DOMAIN, threshold=0.85)
