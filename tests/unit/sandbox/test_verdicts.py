"""A pass is computed outside: nothing that code prints, returns, raises or forges makes one."""

from __future__ import annotations

import pytest

from jupiter.sandbox import Example, Limits, Sandbox, SandboxUnavailable, Session, available
from jupiter.sandbox.enclosure import find_enclosure

DOUBLE = "def double(x):\n    return 2 * x\n"
HIDDEN = "assert double(2) == 4\nassert double('ab') == 'abab'"


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return Sandbox(limits=Limits(wall_s=60, step_wall_s=20))


def test_this_machine_has_a_sandbox() -> None:
    assert available() is None


def test_right_code_passes(sandbox: Sandbox) -> None:
    result = sandbox.run_python(DOUBLE, test=HIDDEN)
    assert (result.passed, result.reason, result.checks) == (True, "", 2)


def test_wrong_code_fails_and_the_reason_shows_what_it_gave(sandbox: Sandbox) -> None:
    result = sandbox.run_python("def double(x):\n    return x * x", test=HIDDEN)
    assert not result.passed
    assert "raised: TypeError" in result.reason or "gave" in result.reason


@pytest.mark.parametrize(
    "code",
    [
        "import sys\nsys.exit(0)",
        "import os\nos._exit(0)",
        "def double(x):\n    import sys\n    sys.exit(0)",
        "def double(x):\n    import os\n    os._exit(0)",
        (
            "class Yes:\n    def __eq__(self, other): return True\n    def __bool__(self): return True\n"
            "def double(x):\n    return Yes()"
        ),
        (
            "class Yes(int):\n    def __eq__(self, other): return True\n    __hash__ = int.__hash__\n"
            "def double(x):\n    return Yes(5)"
        ),
        "class Yes:\n    __class__ = int\n    def __repr__(self): return '4'\ndef double(x):\n    return Yes()",
        "import builtins\nbuiltins.AssertionError = None\ndef double(x):\n    return 5",
        "print('passed: true')\nprint('OK')\ndef double(x):\n    return 0",
        "import sys\nsys.settrace(lambda *a: None)\ndef double(x):\n    return None",
    ],
    ids=["exit", "_exit", "exit-late", "_exit-late", "eq", "eq-int", "class-lie", "no-asserts", "prints", "trace"],
)
def test_tricks_do_not_pass(sandbox: Sandbox, code: str) -> None:
    assert not sandbox.run_python(code, test=HIDDEN).passed


FORGE = """
import json, os, sys
frame = sys._getframe()
while frame:
    job = frame.f_locals.get("job")
    if job:
        for fd in range(3, 12):
            for step in range(1, 4):
                forged = {"unit": 0, "step": step, "status": "returned", "error": "", "stdout": "",
                          "truncated": False, "value": %s, "passed": True}
                try: os.write(fd, f"\\n{job['nonce']} {json.dumps(forged)}\\n".encode())
                except OSError: pass
    frame = frame.f_back
os._exit(0)
"""


@pytest.mark.parametrize("value", ['["bool", True]', '["int", "5"]', '["none", None]', "None", '["list", []]'])
def test_forged_reports_with_the_stolen_nonce_do_not_pass(sandbox: Sandbox, value: str) -> None:
    """The code may find the nonce in the runner's frames: it still does not know what is expected."""
    assert not sandbox.run_python(FORGE % value, test=HIDDEN).passed


def test_the_expected_values_are_nowhere_inside(sandbox: Sandbox) -> None:
    secret = "a-value-that-only-the-test-knows"
    search = (
        "import gc, sys\n"
        "def texts(x, depth=6):\n"
        "    if isinstance(x, str): yield x\n"
        "    elif depth and isinstance(x, dict):\n"
        "        for k, v in list(x.items()): yield from texts(k, depth - 1); yield from texts(v, depth - 1)\n"
        "    elif depth and isinstance(x, (list, tuple, set)):\n"
        "        for v in list(x): yield from texts(v, depth - 1)\n"
        "def answer():\n"
        "    found = [t for o in gc.get_objects() for t in texts(o) if '-'.join(['only', 'the', 'test']) in t]\n"
        "    frame = sys._getframe()\n"
        "    while frame:\n"
        "        found += [t for t in texts(dict(frame.f_locals)) if '-'.join(['only', 'the', 'test']) in t]\n"
        "        frame = frame.f_back\n"
        "    return found\n"
    )
    result = sandbox.run_python(search, test=f"assert answer() == [{secret!r}]")
    assert result.reason == "`answer()` gave []"


def test_prints_with_a_made_up_nonce_are_ignored(sandbox: Sandbox) -> None:
    write = "try: os.write(fd, b'\\n{\"unit\": 0}\\n00 {}\\n')"
    code = f"import os\nfor fd in range(12):\n    {write}\n    except OSError: pass\n"
    assert sandbox.run_python(code + DOUBLE, test=HIDDEN).passed


@pytest.mark.parametrize(
    ("test", "why"),
    [
        ("assert double(2)", "compares nothing"),
        ("assert isinstance(double(2), int)", "compares nothing"),
        ("assert double(2) == double(2)", "both sides"),
        ("for x in (1, 2):\n    assert double(x) == 2 * x", "inside `For`"),
        ("print(double(2))", "compares nothing"),
        ("assert double(2) == (", "not valid Python"),
        (">>> double(2)", "expects no output"),
    ],
)
def test_a_test_that_cannot_be_decided_outside_is_no_pass(sandbox: Sandbox, test: str, why: str) -> None:
    result = sandbox.run_python(DOUBLE, test=test)
    assert not result.passed
    assert why in result.reason


@pytest.mark.parametrize(
    "test",
    [
        "assert double([1]) == [1, 1]",
        "assert 4 == double(2)",
        "assert double(1.5) == 3",
        "assert double(2) == sorted([4, 5])[0]",
        "wanted = sum([1, 3])\ngot = double(2)\nassert got == wanted",
        "import math\nassert double(2) == math.floor(4.5)\nassert double(2) > 3\nassert not double(0)",
        "def test_double():\n    assert double((1,)) == (1, 1)",
        "assert double({1: 2}.get(1)) is not None\nassert double(True) == 2",
        (
            ">>> double(2)\n4\n>>> double(None)\nTraceback (most recent call last):\n...\nTypeError: unsupported "
            "operand type(s) for *: 'int' and 'NoneType'\n"
        ),
        ">>> list(range(double(10)))  # doctest: +ELLIPSIS\n[0, 1, ..., 19]\n",
    ],
)
def test_kinds_of_tests_that_are_decided(sandbox: Sandbox, test: str) -> None:
    result = sandbox.run_python(DOUBLE, test=test)
    assert result.passed, result.reason
    assert not sandbox.run_python("def double(x):\n    return 'no'", test=test).passed


def test_subclasses_of_plain_types_count_as_the_data_they_hold(sandbox: Sandbox) -> None:
    code = "from collections import *\nP = namedtuple('P', 'x y')\ndef f(s): return [Counter(s), P(1, 2)]"
    assert sandbox.run_python(code, test="assert f('aab') == [{'a': 2, 'b': 1}, (1, 2)]").passed


def test_code_without_a_test_passes_when_it_runs_to_its_end(sandbox: Sandbox) -> None:
    assert sandbox.run_python("x = 1").passed
    assert not sandbox.run_python("1 / 0").passed
    assert not sandbox.run_python("def f(:").passed


def test_sessions_are_isolated_timed_and_reported_example_by_example(sandbox: Sandbox) -> None:
    def session(*sources: str, setup: str = "") -> Session:
        return Session(examples=tuple(Example(source=source) for source in sources), setup=setup)

    found = Sandbox(limits=Limits(wall_s=60, step_wall_s=1)).run_sessions(
        [
            session("x = 2", "x + 1", "print('a'); x", setup="import math"),
            session("x", "math.pi > 3", setup="import math\nmath.pi = 4"),
            session("while True: pass", "1"),
            session("1", "import os; os._exit(1)", "2"),
            session("for i in range(2):\n    print(i)", "1 / 0", "math.pi", setup="from math import *\nimport math"),
        ]
    )
    assert [[(o.status, o.stdout) for o in outcomes] for outcomes in found] == [
        [("returned", ""), ("returned", "3\n"), ("returned", "a\n2\n")],
        [("raised", ""), ("returned", "True\n")],
        [("timed_out", ""), ("skipped", "")],
        [("returned", "1\n"), ("died", ""), ("skipped", "")],
        [("returned", "0\n1\n"), ("raised", ""), ("returned", "3.141592653589793\n")],
    ]
    assert found[4][1].error == "ZeroDivisionError: division by zero"


def test_many_sessions_of_one_document_take_one_run(sandbox: Sandbox) -> None:
    sessions = [Session(examples=(Example(source=f"{n} + 1"),)) for n in range(100)]
    found = sandbox.run_sessions(sessions)
    assert [outcomes[0].stdout for outcomes in found] == [f"{n + 1}\n" for n in range(100)]


def test_the_systems_own_interpreter_can_be_enclosed_too() -> None:
    """Where every user may read the interpreter, no anteroom is needed; both ways must work."""
    enclosure = find_enclosure()
    sandbox = Sandbox(interpreter=enclosure.interpreter)
    assert sandbox.run_python("x = 1").passed


def test_an_interpreter_that_is_not_there_makes_the_sandbox_unavailable(tmp_path: object) -> None:
    with pytest.raises(SandboxUnavailable, match="no interpreter"):
        find_enclosure(interpreter=__import__("pathlib").Path(str(tmp_path)) / "python3")
