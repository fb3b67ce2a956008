"""The history of shards, and the view of it without one of them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupiter.curator.candidate import digest_of_text
from jupiter.curator.history import History
from jupiter.curator.pipeline import candidates_of
from jupiter.curator.real import real_samples
from jupiter.overlap.forbidden import training_text
from jupiter.records import Chunk, Sample
from tests.unit.curator.material import GOOD, SETTINGS, corpus, document, sample

CORPUS = corpus()
TEXTS = [
    GOOD,
    "If skipkeys is true, dict keys that are not basic types are skipped, and no TypeError is raised.",
    "The default separators give the compact form, and an indent of 4 is the way to the long one.",
    "Keys of other kinds raise a TypeError, unless they are skipped.",
]


def history_of(shards: Sequence[tuple[str, Sequence[Sample]]]) -> History:
    history = History(near_duplicate_threshold=SETTINGS.near_duplicate_threshold)
    for shard_id, samples in shards:
        made = candidates_of(samples, CORPUS)
        history.apply(shard_id, samples, {one.sample.sample_id: one.signature for one in made})
    return history


def real() -> Sample:
    entry = document()
    (first, *_) = real_samples(entry, (Chunk(document_id=entry.document_id, index=0, text=entry.text),))
    return first


def answers_of(history: History) -> list[object]:
    """Return what the history says of everything that the tests put in."""
    probes = candidates_of([sample(text) for text in TEXTS], CORPUS)
    return [
        len(history),
        len(history.index),
        [history.has_text(digest_of_text(training_text(probe.sample))) for probe in probes],
        [(found[1] if found else None) for found in (history.index.find(probe.signatures) for probe in probes)],
        history.answer_to(digest_of_text(probes[0].sample.instruction or "")),
        history.samples_of(document().document_id),
        list(history.wordings_of(document().document_id)),
        dict(history.real_uses),
    ]


@given(st.lists(st.lists(st.sampled_from(TEXTS), unique=True, max_size=3), min_size=1, max_size=4), st.data())
def test_without_a_shard_the_history_is_as_if_the_shard_had_never_been(
    contents: list[list[str]], data: st.DataObject
) -> None:
    shards = [
        (f"shard-{number}", [real(), *(sample(text, seed=10 * number) for text in texts)])
        for number, texts in enumerate(contents)
    ]
    left_out = data.draw(st.integers(0, len(shards) - 1))
    history = history_of(shards)
    before = answers_of(history)
    view = history.without(f"shard-{left_out}")
    assert answers_of(view) == answers_of(history_of([shard for shard in shards if shard[0] != f"shard-{left_out}"]))
    assert answers_of(history) == before


def test_without_a_shard_that_is_not_known_nothing_is_left_out() -> None:
    history = history_of([("one", [sample(GOOD)])])
    assert answers_of(history.without("another")) == answers_of(history)


def test_a_view_cannot_be_written() -> None:
    history = history_of([("one", [sample(GOOD)])])
    with pytest.raises(AssertionError, match="read only"):
        history.without("one").apply("two", [], {})


def test_a_shard_is_applied_once() -> None:
    history = history_of([("one", [sample(GOOD), real()]), ("one", [sample(TEXTS[1])])])
    assert (len(history), len(history.index), sum(history.real_uses.values())) == (1, 1, 1)
