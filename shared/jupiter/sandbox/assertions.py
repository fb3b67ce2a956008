"""Taking a hidden test apart: what goes in to be computed, and what stays outside to be compared.

Owns: which tests can be decided from outside. Does not know: how anything is run.

`assert f(2) == 4`: `f(2)` goes in, `4` stays. An expected side that is no literal (`sorted([2, 1])`) is computed in a
run of its own that never sees the code under test. A test counts only with at least one such comparison: a bare
`assert f(2)` or `assert isinstance(...)` can be satisfied by an object that answers yes to everything.
"""

from __future__ import annotations

import ast
import doctest
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from jupiter.sandbox import values

__all__ = ["Check", "Plan", "UndecidableTest", "plan"]


class UndecidableTest(ValueError):
    """The verdict on this test could only be computed inside, where it can be forged."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One step of the test. Only `equals`, `prints` and `raises` prove anything; `truth` must hold besides."""

    kind: Literal["run", "equals", "truth", "prints", "raises"]
    source: str
    expected: values.Plain = None
    """For `equals` with a literal and for `truth`."""
    expected_source: str | None = None
    """For `equals`: an expression to be computed without the code under test."""
    want: str = ""
    """For `prints` and `raises`: the doctest's expected output or last traceback line, and its options."""
    options: int = 0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The test as steps in order, and the statements an expected side may need."""

    checks: tuple[Check, ...]
    prelude: tuple[str, ...] = ()


def plan(code: str, test: str) -> Plan:
    """Return the plan for `test` of `code`. Raises UndecidableTest with the reason, SyntaxError for a broken test."""
    if ">>>" in test:
        return _plan_doctest(test)
    checks: list[Check] = []
    imports = [ast.unparse(node) for node in _imports(code)]
    prelude = list(imports)
    tainted = _bound_names(code)
    for statement in _flatten(ast.parse(test).body):
        if isinstance(statement, ast.Assert):
            checks.append(_check(statement.test, tainted))
            continue
        source = ast.unparse(statement)
        checks.append(Check(kind="run", source=source))
        if _names(statement) & tainted:
            tainted |= _bound(statement)
        else:
            prelude.append(source)
    return _with_proof(Plan(checks=tuple(checks), prelude=tuple(prelude)))


def _plan_doctest(test: str) -> Plan:
    try:
        examples = doctest.DocTestParser().get_examples(test)
    except ValueError as error:
        raise UndecidableTest(f"not a readable doctest: {error}") from error
    checks = []
    for example in examples:
        options = sum(flag for flag, on in example.options.items() if on)
        if example.exc_msg:
            checks.append(Check(kind="raises", source=example.source, want=example.exc_msg, options=options))
        else:
            # An example without expected output must print nothing.
            checks.append(Check(kind="prints", source=example.source, want=example.want, options=options))
    if not any(check.want for check in checks):
        raise UndecidableTest("the doctest expects no output")
    return Plan(checks=tuple(checks))


def _with_proof(made: Plan) -> Plan:
    if not any(check.kind == "equals" for check in made.checks):
        raise UndecidableTest("the test compares nothing with a value that could be known outside the sandbox")
    return made


def _check(test: ast.expr, tainted: set[str]) -> Check:
    if isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.Eq | ast.Is):
        left, right = test.left, test.comparators[0]
        left_is_theirs, right_is_theirs = bool(_names(left) & tainted), bool(_names(right) & tainted)
        if left_is_theirs != right_is_theirs:
            return _equality(*((left, right) if left_is_theirs else (right, left)))
        if left_is_theirs:
            raise UndecidableTest(f"both sides of `{ast.unparse(test)}` come from the code under test")
    return Check(kind="truth", source=ast.unparse(test))


def _equality(theirs: ast.expr, ours: ast.expr) -> Check:
    source, expected = ast.unparse(theirs), ast.unparse(ours)
    try:
        return Check(kind="equals", source=source, expected=values.literal(expected))
    except ValueError:
        return Check(kind="equals", source=source, expected_source=expected)


def _flatten(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements of the module and of its `def test_…():` functions, all of them straight lines."""
    for statement in body:
        if (
            isinstance(statement, ast.FunctionDef)
            and statement.name.startswith("test")
            and not ast.unparse(statement.args)
        ):
            yield from _flatten(statement.body)
        elif any(isinstance(node, ast.Assert) for node in ast.walk(statement)) and not isinstance(
            statement, ast.Assert
        ):
            raise UndecidableTest(f"an assertion inside `{type(statement).__name__}` can only be decided inside")
        else:
            yield statement


def _imports(code: str) -> list[ast.stmt]:
    try:
        body = ast.parse(code).body
    except SyntaxError:
        return []
    return [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)]


def _bound_names(code: str) -> set[str]:
    """Return every name that the code binds other than by a top-level import."""
    try:
        body = ast.parse(code).body
    except SyntaxError:
        return set()
    return {name for node in body if not isinstance(node, ast.Import | ast.ImportFrom) for name in _bound(node)}


def _bound(statement: ast.AST) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.alias):
            found.add((node.asname or node.name).split(".")[0])
    return found


def _names(node: ast.AST) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
