"""Interactive examples (`>>>` sessions) and prose passages of the standard library's own documentation.

Owns: finding them in the running interpreter's docstrings and in `pydoc_data.topics`.
Does not know: whether an example still holds (the evaluator runs each in its sandbox).
"""

from __future__ import annotations

import ast
import doctest
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass

from jupiter.domains.python_stdlib.modules import MODULE_NAMES, import_quietly

__all__ = ["Session", "read_sessions", "read_topics"]

SESSION_CHARS_MAX = 1_500
TOPIC_CHARS_MIN = 1_200


@dataclass(frozen=True)
class Session:
    """A run of consecutive examples of one docstring, as one would type them."""

    module: str
    owner: str
    text: str


def _docstrings(module_name: str) -> Iterator[tuple[str, str]]:
    module = import_quietly(module_name)
    if module is None:
        return
    try:
        tree = ast.parse(inspect.getsource(module))
    except (OSError, TypeError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            docstring = ast.get_docstring(node)
            if docstring and ">>>" in docstring:
                yield (module_name if isinstance(node, ast.Module) else f"{module_name}.{node.name}"), docstring


def _sessions(docstring: str) -> Iterator[str]:
    """Yield the blocks of examples; prose between two examples ends a block."""
    try:
        parts = doctest.DocTestParser().parse(docstring)
    except ValueError:
        return
    block: list[str] = []
    for part in [*parts, "end"]:
        if isinstance(part, doctest.Example):
            source = part.source.rstrip("\n").split("\n")
            block.append(">>> " + "\n... ".join(source) + "\n" + part.want)
        elif part.strip() and block:
            text = "".join(block)
            if len(text) <= SESSION_CHARS_MAX:
                yield text
            block = []


def read_sessions() -> Iterator[Session]:
    """Yield each session once; sessions of one docstring are preceded by its imports where they stand first."""
    seen: set[str] = set()
    for module_name in MODULE_NAMES:
        for owner, docstring in _docstrings(module_name):
            for text in _sessions(docstring):
                if text not in seen:
                    seen.add(text)
                    yield Session(module_name, owner, text)


def read_topics() -> Iterator[tuple[str, str]]:
    """Yield (topic, text) of the language reference, with its underlined headings and signatures removed."""
    from pydoc_data.topics import topics

    for name, raw in sorted(topics.items()):
        lines = [line for line in raw.splitlines() if not re.fullmatch(r"[*=~^\"-]{4,}", line.strip())]
        text = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
        if len(text) >= TOPIC_CHARS_MIN:
            yield name, text
