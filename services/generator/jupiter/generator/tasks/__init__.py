"""What can be made from a passage: one task type per file, found by the name of its module.

Owns: the task interface and the registry. Does not know: any task.

A task renders a grounded prompt (the passage is in it, so that the completion can be verified) and parses the
completion into a closed-book training sample (the passage is not in it).

To add one, write `tasks/<name>.py` with `TASK`, an object that satisfies `Task`; nothing else changes.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from functools import cache
from typing import Protocol

from jupiter.errors import Rejected
from jupiter.records import Chunk

__all__ = ["Parsed", "Rendered", "Request", "Task", "Unusable", "find_task", "task_names"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """One sample to make: from which passage, for whom, how hard."""

    chunk: Chunk
    audience: str
    difficulty: str


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """A prompt, and where its completion ends."""

    text: str
    stop: tuple[str, ...] = ()
    chat: bool = False
    """True: put into the model's chat template. False: plain text that the model continues."""
    own: str | None = None
    """The end of `text` that is about this passage, where worked examples stand before it."""


@dataclass(frozen=True, kw_only=True)
class Parsed:
    """A training pair, closed book."""

    instruction: str
    response: str
    test: str | None = None
    """For code: what the response must pass in the sandbox."""


@dataclass(frozen=True, kw_only=True)
class Unusable:
    """No sample comes of it; `reason` is a short word that can be counted."""

    reason: str


class Task(Protocol):
    """One way to make a sample of a passage."""

    @property
    def template(self) -> str:
        """The template's name and version, recorded with every sample; change it with the wording."""
        ...

    def render(self, request: Request) -> Rendered | Unusable:
        """Return the grounded prompt, or why this passage cannot serve."""
        ...

    def parse(self, completion: str, request: Request) -> Parsed | Unusable:
        """Return the training pair, or why the completion cannot be used."""
        ...


def task_names() -> list[str]:
    """Return the task types that exist; modules that begin with `_` are shared parts."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


@cache
def find_task(name: str) -> Task:
    """Return the task type called `name`. Raises Rejected when there is none."""
    if name not in task_names():
        raise Rejected(f"there is no task type {name!r}; there are: {', '.join(task_names())}")
    task: Task = importlib.import_module(f"{__name__}.{name}").TASK
    return task
