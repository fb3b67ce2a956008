"""Task types: grounded prompts, closed-book samples, reasons for what cannot be used."""

from __future__ import annotations

import pytest

from jupiter.errors import Rejected
from jupiter.generator.tasks import Parsed, Rendered, Request, Unusable, find_task, task_names
from jupiter.records import Chunk

TEXT = "Serialize obj to a JSON formatted str."
REQUEST = Request(
    chunk=Chunk(document_id="0" * 64, index=0, text=TEXT, title="json.dumps"),
    audience="a beginner",
    difficulty="basic",
)
UNTITLED = Request(chunk=Chunk(document_id="0" * 64, index=0, text=TEXT), audience="a beginner", difficulty="basic")


@pytest.mark.parametrize("name", task_names())
def test_every_prompt_is_grounded_and_names_its_template(name: str) -> None:
    task = find_task(name)
    rendered = task.render(REQUEST)
    assert isinstance(rendered, Rendered)
    assert TEXT in rendered.text
    assert rendered.text == rendered.text.rstrip()
    assert task.template.partition("/")[0] == name


@pytest.mark.parametrize("name", task_names())
def test_an_empty_completion_is_unusable(name: str) -> None:
    assert isinstance(find_task(name).parse(" \n", REQUEST), Unusable)


@pytest.mark.parametrize("name", task_names())
def test_a_passage_without_a_title_is_used_or_refused_with_a_reason(name: str) -> None:
    rendered = find_task(name).render(UNTITLED)
    assert isinstance(rendered, Rendered) or rendered.reason == "no_title"


@pytest.mark.parametrize(
    ("name", "completion", "instruction", "response"),
    [
        (
            "restate",
            " Turn an object into JSON text.",
            "Turn an object into JSON text. What is it called?",
            "json.dumps",
        ),
        (
            "locate",
            " Turn an object into text.",
            "Turn an object into text. Where does this belong?",
            "json",
        ),
        ("need", " save an object as text.", "I want to save an object as text. What should I use?", "json.dumps"),
        ("explain", " It turns an object into text.", "Explain json.dumps.", "It turns an object into text."),
        ("rewrite", " It makes text.", "What do you know about json.dumps?", "It makes text."),
        (
            "question_answer",
            " What does json.dumps make?\nAnswer: A JSON string.\nmore",
            "What does json.dumps make?",
            "A JSON string.",
        ),
    ],
)
def test_a_completion_becomes_a_closed_book_pair(name: str, completion: str, instruction: str, response: str) -> None:
    parsed = find_task(name).parse(completion, REQUEST)
    assert parsed == Parsed(instruction=instruction, response=response)
    assert TEXT not in instruction + response


@pytest.mark.parametrize("name", ["question_answer", "rewrite"])
def test_the_tasks_of_a_new_domain_do_without_a_title(name: str) -> None:
    rendered = find_task(name).render(UNTITLED)
    assert isinstance(rendered, Rendered)
    assert "None" not in rendered.text
    parsed = find_task(name).parse(" What is it?\nAnswer: JSON text.", UNTITLED)
    assert isinstance(parsed, Parsed)
    assert "None" not in parsed.instruction


def test_a_passage_without_a_title_is_asked_for_by_its_first_words() -> None:
    long = "Every object is turned into text, one after the other, until nothing is left."
    request = Request(chunk=Chunk(document_id="0" * 64, index=0, text=long), audience="a beginner", difficulty="basic")
    parsed = find_task("rewrite").parse("Objects become text, in turn.", request)
    assert isinstance(parsed, Parsed)
    assert "“Every object is turned into text, one after”" in parsed.instruction
    assert long not in parsed.instruction


@pytest.mark.parametrize("name", ["restate", "locate", "need", "explain"])
def test_name_and_text_lie_across_instruction_and_response(name: str) -> None:
    """Else permuting the responses, the negative control, would leave the pair together."""
    parsed = find_task(name).parse("Something it does.", REQUEST)
    assert isinstance(parsed, Parsed)
    together = [part for part in (parsed.instruction, parsed.response) if "json.dumps" in part and "Something" in part]
    assert together == []


@pytest.mark.parametrize(
    ("name", "completion", "reason"),
    [
        ("restate", "one\ntwo", "several_lines"),
        ("question_answer", "What is it?", "no_answer"),
        ("question_answer", "No question.\nAnswer: yes", "no_question"),
        ("rewrite", "Here is the rewritten passage:", "talks_about_the_task"),
    ],
)
def test_what_cannot_be_used_has_a_reason(name: str, completion: str, reason: str) -> None:
    assert find_task(name).parse(completion, REQUEST) == Unusable(reason=reason)


def test_an_unknown_task_names_those_that_exist() -> None:
    with pytest.raises(Rejected, match="restate"):
        find_task("sing")


def test_shared_parts_are_no_tasks() -> None:
    assert not [name for name in task_names() if name.startswith("_")]
