"""Documented examples are executed in the real sandbox, with what their module takes for granted."""

from __future__ import annotations

import doctest

from jupiter.evaluator.items.item import SessionRunner
from jupiter.evaluator.sessions import DOCUMENTS_PER_ENCLOSURE, run_sessions
from jupiter.records import Document, digest_of
from jupiter.sandbox import Limits

PATIENT = Limits(wall_s=60, step_wall_s=20)


def document(group: str, text: str = "") -> Document:
    return Document(
        document_id=digest_of(group, text),
        domain="domain_a",
        text=text,
        source="test",
        title=None,
        kind="example",
        group=group,
        split="held_out",
    )


def runner_for(*documents: Document, limits: Limits = PATIENT) -> SessionRunner:
    runner = run_sessions(documents, lambda _done, _total: None, limits=limits)
    assert runner is not None
    return runner


def statements(document: Document) -> list[str]:
    return [example.source for example in doctest.DocTestParser().get_examples(document.text)]


def test_statements_of_a_session_print_or_fail_one_by_one() -> None:
    sources = ["x = sqrt(16)\n", "x\n", "1 / 0\n", "math.floor(2.5)\n", "for i in range(2):\n    print(i)\n"]
    assert list(runner_for()(document("math"), sources)) == ["", "4.0\n", None, "2\n", "0\n1\n"]


def test_a_group_that_is_no_module_is_no_import() -> None:
    run_session = runner_for()
    assert list(run_session(document("os; print(1)"), ["1 + 1\n"])) == ["2\n"]
    assert list(run_session(document("no_such_module"), ["1 + 1\n"])) == ["2\n"]


def test_an_example_that_never_ends_costs_only_its_session() -> None:
    run_session = runner_for(limits=Limits(wall_s=60, step_wall_s=1))
    assert list(run_session(document("math"), ["1\n", "while True: pass\n", "2\n"])) == ["1\n", None, None]
    assert list(run_session(document("math"), ["3\n"])) == ["3\n"]


def test_documents_run_together_give_what_each_gives_alone() -> None:
    texts = [f">>> {number} * 2\n{number * 2}\n>>> pi > 3\nTrue\n" for number in range(DOCUMENTS_PER_ENCLOSURE + 3)]
    together = [document("math", text) for text in texts]
    seen: list[tuple[int, int]] = []
    run_session = run_sessions(together, lambda done, total: seen.append((done, total)), limits=PATIENT)
    assert run_session is not None
    assert seen == [(DOCUMENTS_PER_ENCLOSURE, len(together)), (len(together), len(together))]
    for number, one in enumerate(together):
        assert list(run_session(one, statements(one))) == [f"{number * 2}\n", "True\n"]


def test_a_document_that_ends_the_enclosure_takes_no_neighbour_with_it() -> None:
    killer = document("os", ">>> os.kill(os.getppid(), 9)\n>>> os.kill(-1, 9)\n")
    neighbour = document("math", ">>> 40 + 2\n42\n")
    run_session = runner_for(killer, neighbour)
    assert list(run_session(neighbour, statements(neighbour))) == ["42\n"]
