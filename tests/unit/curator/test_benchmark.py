"""The overlap rule against the frozen benchmark, and reading it."""

from __future__ import annotations

import pytest

from jupiter.blobs.memory import MemoryBlobs
from jupiter.curator.benchmark import read_forbidden
from jupiter.errors import IntegrityError
from jupiter.overlap.forbidden import ForbiddenTexts
from jupiter.overlap.signatures import sketch
from jupiter.overlap.wording import words
from tests.unit.curator.material import BENCHMARK_TEXT, DOMAIN, forbidden_items, freeze_benchmark

LONG = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
SHORT = "close the remote connection and forget all about it"


def overlap(forbidden: ForbiddenTexts, text: str) -> str | None:
    reason = forbidden.overlap(words(text), sketch([words(text)]))
    # The count and the filter are one rule.
    assert bool(forbidden.overlapped(words(text), sketch([words(text)]))) == (reason is not None)
    return reason


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
    assert overlap(forbidden_items([[LONG], [SHORT, "Return the sine of x."]]), text) == reason


def test_a_near_duplicate_without_a_common_run_is_found() -> None:
    item = [f"word{number}" for number in range(80)]
    changed = [word if number % 12 else f"{word}x" for number, word in enumerate(item)]
    forbidden = forbidden_items([[" ".join(item)]], threshold=0.3)
    assert overlap(forbidden, " ".join(changed)) == "contaminated_near_duplicate"


def test_what_many_items_share_is_their_template() -> None:
    template = "which function of the standard library of this language fits the following short description of it"
    items = [[f"{template}: number {number} of them is this one alone"] for number in range(20)]
    forbidden = forbidden_items(items)
    assert overlap(forbidden, f"{template}?") is None
    assert overlap(forbidden, items[7][0]) == "contaminated_run"


def test_the_frozen_benchmark_is_read_from_the_store() -> None:
    blobs = MemoryBlobs()
    assert read_forbidden(blobs, DOMAIN, threshold=0.85) is None
    freeze_benchmark(blobs)
    forbidden = read_forbidden(blobs, DOMAIN, threshold=0.85)
    assert forbidden is not None
    assert forbidden.generation == 1
    assert overlap(forbidden.texts, BENCHMARK_TEXT) == "contaminated_run"


def test_the_newest_benchmark_counts() -> None:
    blobs = MemoryBlobs()
    freeze_benchmark(blobs)
    freeze_benchmark(blobs, texts=[LONG], generation=2)
    forbidden = read_forbidden(blobs, DOMAIN, threshold=0.85)
    assert forbidden is not None
    assert forbidden.generation == 2
    assert overlap(forbidden.texts, LONG) == "contaminated_run"
    assert overlap(forbidden.texts, BENCHMARK_TEXT) is None


def test_a_benchmark_without_items_is_no_benchmark() -> None:
    blobs = MemoryBlobs()
    freeze_benchmark(blobs, texts=[])
    with pytest.raises(IntegrityError, match="no items"):
        read_forbidden(blobs, DOMAIN, threshold=0.85)
