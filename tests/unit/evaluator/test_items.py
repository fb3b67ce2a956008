"""The kinds of items: what becomes a question, and what must not."""

from __future__ import annotations

import random

import pytest

from jupiter.evaluator.items import Corpus, item_kinds
from jupiter.evaluator.items.titles import ambiguous_names, container_and_name, gives_away, name_parts
from tests.unit.evaluator.corpora import make_corpus, make_document, python_runner

KINDS = (
    "container_fact",
    "description_choice",
    "doctest_outcome",
    "entry_choice",
    "generation_health",
    "next_passage",
    "prose_fact",
    "term_cloze",
    "topic_fact",
)


def test_every_kind_is_found_by_listing_the_package() -> None:
    assert tuple(item_kinds()) == KINDS


def test_kinds_of_a_dimension_share_its_whole_weight() -> None:
    for dimension in ("accuracy", "coherence", "knowledge"):
        assert sum(kind.weight for kind in item_kinds().values() if kind.dimension == dimension) == pytest.approx(1)


@pytest.mark.parametrize("name", KINDS)
def test_items_are_unique_and_well_formed(name: str) -> None:
    kind = item_kinds()[name]
    items = kind.build(make_corpus(), random.Random(1))
    assert items
    assert len({item.item_id for item in items}) == len(items)
    for item in items:
        assert (item.kind, item.dimension) == (kind.name, kind.dimension)
        for template in kind.templates:
            template.format(**item.fields)
        if kind.method == "choice":
            assert len(set(item.choices)) == 4
            assert item.choices.count(item.answer) == 1


@pytest.mark.parametrize("name", KINDS)
def test_the_same_seed_gives_the_same_items(name: str) -> None:
    kind = item_kinds()[name]
    assert kind.build(make_corpus(), random.Random(3)) == kind.build(make_corpus(), random.Random(3))


def test_right_answers_stand_at_every_place() -> None:
    items = item_kinds()["description_choice"].build(make_corpus(), random.Random(0))
    assert {item.choices.index(item.answer) for item in items} == {0, 1, 2, 3}


def test_only_examples_that_the_sandbox_confirms_become_items() -> None:
    items = item_kinds()["doctest_outcome"].build(make_corpus(), random.Random(0))
    assert not any(item.fields["asked"] == ">>> 7 * 7" for item in items), "its documented output is wrong"
    assert {item.answer for item in items} >= {"0", "1", "2"}


def test_without_a_sandbox_no_example_becomes_an_item() -> None:
    corpus = make_corpus()
    unverified = Corpus(held_out=corpus.held_out, training=corpus.training, run_session=None)
    assert item_kinds()["doctest_outcome"].build(unverified, random.Random(0)) == []


INDEPENDENT = (
    "Symbolic links are followed unless the flag says otherwise, and errors are gathered and reported at the very end. "
    "Permissions and times are kept where the platform allows it."
)


def _with(text: str) -> Corpus:
    """Return the toy corpus plus one entry `pkg1.copytree` whose trained text is fixed and whose second is `text`."""
    corpus = make_corpus()
    trained = make_document(
        "Duplicate a whole folder, everything below it included.", title="pkg1.copytree", kind="api", split="training"
    )
    second = make_document(text, title="pkg1.copytree", kind="api", group="pkg1")
    return Corpus((*corpus.held_out, second), (*corpus.training, trained), python_runner)


@pytest.mark.parametrize("name", ["description_choice", "entry_choice", "topic_fact"])
@pytest.mark.parametrize(
    ("text", "usable"),
    [
        (INDEPENDENT, True),
        ("The tree is walked and its links are followed by this call.", False),
        ("Use copytree() for backups of important things only.", False),
        ("Duplicate a whole folder, everything below it is included.", False),
    ],
    ids=["independent", "part of the name", "the name", "the trained sentence"],
)
def test_give_aways_and_trained_sentences_are_left_out(name: str, text: str, usable: bool) -> None:
    items = item_kinds()[name].build(_with(text), random.Random(0))
    assert any(text in item.texts for item in items) == usable


def test_exposure_says_whether_the_fact_can_have_been_trained() -> None:
    corpus = make_corpus()
    unseen = make_document(
        "Symbolic links are followed unless the flag says so.", title="pkg1.zebra", kind="api", group="pkg1"
    )
    items = item_kinds()["container_fact"].build(
        Corpus((*corpus.held_out, unseen), corpus.training, None), random.Random(0)
    )
    assert {item.exposure for item in items if item.fields["name"] == "zebra"} == {"unseen"}
    assert {item.exposure for item in items if item.fields["name"] != "zebra"} == {"recall"}


def test_container_facts_leave_out_names_that_tell_or_are_shared() -> None:
    documents = (
        make_document("One.", title="json.JSONDecoder", kind="api"),
        make_document("Two.", title="os.open", kind="api"),
        make_document("Three.", title="io.open", kind="api"),
        make_document("Four.", title="shutil.copytree", kind="api"),
    )
    items = item_kinds()["container_fact"].build(Corpus(documents, (), None), random.Random(0))
    assert [(item.fields["name"], item.answer) for item in items] == [("copytree", " shutil")]


def test_distractors_of_the_next_passage_come_from_the_same_document() -> None:
    corpus = make_corpus()
    texts = {doc.group: " ".join(doc.text.split()) for doc in corpus.held_out if doc.kind == "text"}
    for item in item_kinds()["next_passage"].build(corpus, random.Random(0)):
        assert all(choice in texts[item.cluster] for choice in item.choices)
        assert item.answer not in item.fields["context"]


def test_titles_are_read_part_by_part() -> None:
    assert container_and_name("os.path.join") == ("os.path", "join")
    assert container_and_name("len") == ("", "len")
    assert name_parts("http.HTTPServerError") == {"http", "server", "error"}
    assert ambiguous_names(["os.open", "io.open", "os.open", "os.close"]) == {"open"}
    assert gives_away("Returns the decoded objects.", "json.decode")
    assert not gives_away("Get it.", "shutil.get_archive_formats")
