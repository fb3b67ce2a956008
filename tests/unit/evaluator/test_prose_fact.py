"""Facts of plain prose: where a sentence is cut, what would give the answer away, and what the training text tells."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from jupiter.evaluator.items import Corpus, Item, item_kinds
from jupiter.evaluator.items.prose_fact import ITEMS_PER_ANSWER_MAX, ITEMS_PER_DOCUMENT_MAX
from jupiter.records import Document
from tests.unit.evaluator.corpora import make_document

BEFORE = "A cluster is made of many machines, and each of them has work of its own to do all day long."
ENDING = "Whatever is decided elsewhere is in the end carried out on every single machine by the kubelet."


def _others(count: int, *, mention: str = "kubelet", split: str = "training") -> list[Document]:
    """Return documents about other things, the first two of which mention the word."""
    return [
        make_document(
            f"Document number {number} is about something else entirely, a garden or a river at quiet noon. "
            f"It says {mention if number < 2 else 'nothing'} once, then it goes on about gardens number {number}.",
            group=f"other{number}",
            split=split,
        )
        for number in range(count)
    ]


def _items(text: str, *others: Document) -> list[Item]:
    held_out = make_document(text, group="asked")
    training = tuple(other for other in others if other.split == "training")
    items = item_kinds()["prose_fact"].build(Corpus((held_out,), training, None), random.Random(0))
    return [item for item in items if item.cluster == "asked"]


def test_a_sentence_is_cut_before_the_word_it_ends_with() -> None:
    (item,) = _items(f"{BEFORE} {ENDING}", *_others(9))
    assert item.fields == {"before": BEFORE, "beginning": ENDING.removesuffix(" kubelet.")}
    assert item.answer == " kubelet."
    assert item.texts == (ENDING,), "the curator keeps the whole sentence out of training data"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (ENDING, "nothing stands before it"),
        (f"{BEFORE} In the end it is the kubelet.", "too little of the sentence is shown"),
        (f"{BEFORE} {ENDING.replace('decided', 'decided by the kubelet')}", "the sentence holds the answer"),
        (f"{BEFORE.replace('machines', 'machines with kubelets')} {ENDING}", "the sentence before holds its plural"),
        (f"{BEFORE} {ENDING.replace('kubelet', 'apiserver')}", "no other document has the word"),
        (f"{BEFORE} {ENDING.replace('kubelet', 'node')}", "the word is too short"),
        (f"{BEFORE} {ENDING.replace('kubelet.', 'kubelet')}", "the sentence does not end"),
        (f"{BEFORE} {ENDING.replace('the kubelet.', '(or the kubelet).')}", "what is opened would be closed"),
    ],
)
def test_what_cannot_be_answered_or_is_given_away_is_not_asked(text: str, why: str) -> None:
    padded = f"{text}\n\n{'Another paragraph stands here so that the passage is long enough to be read at all. ' * 2}"
    assert _items(padded, *_others(9)) == [], why


def test_a_word_that_many_documents_use_is_no_term() -> None:
    common = [make_document(f"The kubelet again, number {number}.", split="training") for number in range(9)]
    assert _items(f"{BEFORE} {ENDING}", *_others(9))
    assert not _items(f"{BEFORE} {ENDING}", *_others(9), *common)


def test_a_figure_is_asked_for_as_well() -> None:
    text = f"{BEFORE} Unless somebody has configured another one the server listens on port number 6443."
    (item,) = _items(text, *_others(9, mention="6443"))
    assert item.answer == " 6443."


def test_what_is_quoted_is_asked_for_with_its_quotes() -> None:
    quoted = ENDING.replace("kubelet.", '"kubelet".')
    text = f"{BEFORE} {quoted}"
    (item,) = _items(text, *_others(9))
    assert item.answer == ' "kubelet".'
    assert f"{item.fields['beginning']}{item.answer}" == item.texts[0]


def test_exposure_says_whether_a_trained_sentence_relates_the_answer_to_the_question() -> None:
    text = f"{BEFORE} {ENDING}"
    assert [item.exposure for item in _items(text, *_others(12))] == ["unseen"]
    related = make_document("Work is carried out by a kubelet; carried means done.", split="training")
    assert [item.exposure for item in _items(text, *_others(12), related)] == ["recall"]


def test_a_sentence_that_is_trained_on_is_not_asked() -> None:
    trained = make_document(ENDING.replace("every single machine", "every machine"), split="training")
    assert _items(f"{BEFORE} {ENDING}", *_others(9), trained) == []


def test_no_document_and_no_answer_is_asked_too_often() -> None:
    endings = [ENDING.replace("decided", f"decided in room {number}") for number in range(40)]
    alike = " ".join(f"{BEFORE} {ending}" for ending in endings)
    assert len(_items(alike, *_others(9))) == ITEMS_PER_ANSWER_MAX
    words = [f"kubelet{letter}" for letter in "abcdefghijklmnopqrst"]
    varied = " ".join(f"{BEFORE} {ENDING.replace('kubelet', word)}" for word in words)
    mentions = [make_document(f"{word} {word}", split="training") for word in words]
    answers = Counter(item.answer for item in _items(varied, *_others(9), *mentions))
    assert len(answers) == sum(answers.values()) == ITEMS_PER_DOCUMENT_MAX
