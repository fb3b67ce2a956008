"""Python in an answer must parse; where the task came with a test, it must pass it in the sandbox.

Fail closed: where no sandbox is available, samples with a test are dropped, never trusted (DESIGN §10).
Doctest sessions (`>>> `) are parsed without their prompts and outputs.
"""

from __future__ import annotations

import ast
import re
import textwrap
import warnings

from jupiter.curator.candidate import Candidate
from jupiter.curator.filters.base import KEPT, Filter, Verdict

_PROMPT = re.compile(r"^\s*(?:>>>|\.\.\.) ?(.*)$")
NESTING_CHARS_MAX = 20_000
"""`ast.parse` recurses: longer source is refused unread."""


class Code(Filter):
    name = "code"
    order = 400

    def judge(self, candidate: Candidate) -> Verdict:
        code = candidate.code
        if code is None:
            return KEPT
        source = _without_prompts(code)
        if not source.strip():
            return Verdict(kept=False, reason="no_code")
        if len(source) > NESTING_CHARS_MAX or not _parses(source):
            return Verdict(kept=False, reason="code_does_not_parse")
        if candidate.sample.test is None:
            return KEPT
        failure = self.context.run_code(source, candidate.sample.test)
        return KEPT if failure is None else Verdict(kept=False, reason=failure)


def _without_prompts(code: str) -> str:
    """Return the statements of a doctest session, or the code as it is."""
    lines = textwrap.dedent(code).strip("\n").split("\n")
    if not any(line.lstrip().startswith(">>>") for line in lines):
        return "\n".join(lines)
    return "\n".join(match.group(1) for line in lines if (match := _PROMPT.match(line)))


def _parses(source: str) -> bool:
    with warnings.catch_warnings():
        # An invalid escape in model-written code is a SyntaxWarning: its problem, not ours.
        warnings.simplefilter("ignore")
        try:
            ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return False
    return True
