"""The names that a setting may choose from: what is added to a service by adding a file.

Owns: where those files lie, and the line by which a module among them is one. Does not know: the services. It reads
their folders and imports nothing, so that a check of the configuration costs no torch.
"""

from __future__ import annotations

import pkgutil
import re
from dataclasses import dataclass
from pathlib import Path

import jupiter

__all__ = ["ENGINES", "ITEM_KINDS", "JUDGE_KINDS", "TASKS", "Registry"]


@dataclass(frozen=True, kw_only=True)
class Registry:
    """A package of a service, each of whose modules offers one thing under its own name."""

    folder: str
    """Below a root of the namespace `jupiter`."""
    offers: str
    """How the line begins that makes a module one of them; other modules of the package are their shared parts."""

    def names(self) -> tuple[str, ...]:
        """Return what there is, sorted; nothing where the service is not installed."""
        folders = [str(folder) for root in jupiter.__path__ if (folder := Path(root, self.folder)).is_dir()]
        found = {module.name for module in pkgutil.iter_modules(folders) if self._offered(folders, module.name)}
        return tuple(sorted(found))

    def _offered(self, folders: list[str], name: str) -> bool:
        files = (Path(folder, place) for folder in folders for place in (f"{name}.py", f"{name}/__init__.py"))
        return any(re.search(rf"^{self.offers}", file.read_text(), re.MULTILINE) for file in files if file.is_file())


TASKS = Registry(folder="generator/tasks", offers=r"TASK\b")
ENGINES = Registry(folder="generator/engines", offers=r"def create\(")
ITEM_KINDS = Registry(folder="evaluator/items", offers=r"KIND\b")
JUDGE_KINDS = Registry(folder="evaluator/judge/kinds", offers=r"def create\(")
