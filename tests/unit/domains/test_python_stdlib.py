"""The built-in domain: what is trained on and what is benchmark material never mix."""

from __future__ import annotations

from functools import cache

from jupiter.domains.python_stdlib import published_documents
from jupiter.domains.python_stdlib.entries import paragraphs
from jupiter.domains.python_stdlib.examples import read_sessions
from jupiter.domains.python_stdlib.wordings import shares_name, word_jaccard
from jupiter.records import PublishedDocument


@cache
def _documents() -> tuple[PublishedDocument, ...]:
    return tuple(published_documents())


def test_there_is_enough_of_everything() -> None:
    documents = _documents()
    assert sum(d.kind == "api" and d.split == "training" for d in documents) > 1_000
    assert sum(d.kind == "api" and d.split == "held_out" for d in documents) > 400
    assert sum(d.kind == "example" for d in documents) > 100
    assert sum(d.kind == "text" for d in documents) > 30


def test_every_document_says_its_split_and_no_text_stands_twice() -> None:
    documents = _documents()
    assert all(d.split in ("training", "held_out") for d in documents)
    assert len({d.text for d in documents}) == len(documents)


def test_second_wordings_are_independent_of_the_trained_sentence() -> None:
    trained = {d.title: d.text for d in _documents() if d.split == "training" and d.title}
    second = [d for d in _documents() if d.kind == "api" and d.split == "held_out" and d.title in trained]
    assert len(second) > 300
    for document in second:
        assert word_jaccard(document.text, trained[document.title or ""]) <= 0.6
        assert not shares_name(document.text, (document.title or "").rpartition(".")[2])


def test_some_entries_are_never_trained_on() -> None:
    trained = {d.title for d in _documents() if d.split == "training"}
    held_out = {d.title for d in _documents() if d.kind == "api" and d.split == "held_out"}
    assert len(held_out - trained) > 40


def test_entries_max_limits_the_entries_and_keeps_the_order() -> None:
    few = list(published_documents(entries_max=50))
    assert len({d.title for d in few if d.kind == "api"}) == 50
    assert [d.text for d in few if d.kind == "text"] == [d.text for d in _documents() if d.kind == "text"]


def test_paragraphs_leave_out_signatures_examples_and_lists() -> None:
    docstring = "f(a, b)\n\nReturn the sum\nof both.\n\n>>> f(1, 2)\n3\n\n- one\n- two\n\nRaise an error otherwise."
    assert paragraphs(docstring) == ["Return the sum of both.", "Raise an error otherwise."]


def test_sessions_are_whole_examples() -> None:
    sessions = list(read_sessions())
    assert all(session.text.startswith(">>> ") for session in sessions)
    assert len({session.text for session in sessions}) == len(sessions)
