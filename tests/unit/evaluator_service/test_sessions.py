"""Documented examples are executed in the real sandbox, with what their module takes for granted."""

from __future__ import annotations

from jupiter.evaluator.sessions import open_session_runner
from jupiter.records import Document, digest_of
from jupiter.sandbox import Limits


def document(group: str) -> Document:
    return Document(
        document_id=digest_of(group),
        domain="domain_a",
        text="x",
        source="test",
        title=None,
        kind="example",
        group=group,
        split="held_out",
    )


def test_statements_of_a_session_print_or_fail_one_by_one() -> None:
    run_session = open_session_runner()
    assert run_session is not None
    sources = ["x = sqrt(16)\n", "x\n", "1 / 0\n", "math.floor(2.5)\n", "for i in range(2):\n    print(i)\n"]
    assert list(run_session(document("math"), sources)) == ["", "4.0\n", None, "2\n", "0\n1\n"]


def test_a_group_that_is_no_module_is_no_import() -> None:
    run_session = open_session_runner()
    assert run_session is not None
    assert list(run_session(document("os; print(1)"), ["1 + 1\n"])) == ["2\n"]
    assert list(run_session(document("no_such_module"), ["1 + 1\n"])) == ["2\n"]


def test_an_example_that_never_ends_costs_only_its_session() -> None:
    run_session = open_session_runner(Limits(wall_s=30, step_wall_s=0.7))
    assert run_session is not None
    assert list(run_session(document("math"), ["1\n", "while True: pass\n", "2\n"])) == ["1\n", None, None]
    assert list(run_session(document("math"), ["3\n"])) == ["3\n"]
