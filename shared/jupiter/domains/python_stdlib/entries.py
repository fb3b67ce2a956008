"""The public functions and classes of the standard library, with what their docstrings say.

Owns: reading entries from the running interpreter and cutting docstrings into paragraphs.
Does not know: which text is trained on and which is benchmark material (`documents`).
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType

from jupiter.domains.python_stdlib.modules import MODULE_NAMES, import_quietly

__all__ = ["Entry", "paragraphs", "read_entries", "source_docstrings"]

_SIGNATURE = re.compile(r"^[\w.]+\s*\(.*\)\s*(->.*)?$", re.DOTALL)
_SIGNATURE_DASH = re.compile(r"^[\w.]+\s*\([^\n]*\)\s*(?:->\s*[^\n]*?)?\s*(?:--|:)?\s*\n")
_BULLET = re.compile(r"^\s*([-*+>]|\d+[.)])\s", re.MULTILINE)


@dataclass(frozen=True)
class Entry:
    """One public name: where it lives, and its docstring as `inspect.getdoc` gives it."""

    module: str
    name: str
    docstring: str
    is_class: bool

    @property
    def title(self) -> str:
        return f"{self.module}.{self.name}"


def _public_names(module: ModuleType) -> list[str]:
    names = getattr(module, "__all__", None)
    return sorted(set(names if names is not None else [name for name in vars(module) if not name.startswith("_")]))


def read_entries() -> Iterator[Entry]:
    """Yield each documented public function and class once, under the first module that offers it."""
    seen: set[int] = set()
    for module_name in MODULE_NAMES:
        module = import_quietly(module_name)
        if module is None:
            continue
        for name in _public_names(module):
            member = getattr(module, name, None)
            if not (inspect.isroutine(member) or inspect.isclass(member)) or id(member) in seen:
                continue
            docstring = inspect.getdoc(member)
            if not docstring or (inspect.isclass(member) and docstring == inspect.getdoc(object)):
                continue
            seen.add(id(member))
            yield Entry(module_name, name, docstring, inspect.isclass(member))


def paragraphs(docstring: str) -> list[str]:
    """Return the prose paragraphs, each on one line: signatures, examples, lists and tables are left out."""
    kept: list[str] = []
    for block in re.split(r"\n\s*\n", docstring.strip()):
        block = _SIGNATURE_DASH.sub("", block.strip() + "\n", count=1).strip()
        if not block or _SIGNATURE.match(block) or ">>>" in block or _BULLET.search(block):
            continue
        lines = block.split("\n")
        if any(line.startswith((" ", "\t")) for line in lines[1:]) or re.search(r"\S {3,}\S|={3,}|-{4,}", block):
            continue
        if lines[0].rstrip().endswith(":") and len(lines) == 1:
            continue
        kept.append(" ".join(block.split()))
    return kept


def source_docstrings(module: ModuleType) -> dict[str, str]:
    """Return top-level name to docstring as written in the module's Python source.

    They differ from the live ones where a C accelerator replaces the Python implementation
    (`heapq`, `bisect`, `datetime`, `decimal`): a second author's wording of the same thing.
    """
    try:
        tree = ast.parse(inspect.getsource(module))
    except (OSError, TypeError):
        return {}
    documented: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            docstring = ast.get_docstring(node)
            if docstring:
                documented[node.name] = docstring
    return documented
