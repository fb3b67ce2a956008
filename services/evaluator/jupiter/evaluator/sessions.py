"""Doctest sessions of the documents, run in the sandbox before the benchmark is built.

Owns: what a document's examples may take for granted, and running many documents in few enclosures.
Does not know: which of them become items (`items`).
"""

from __future__ import annotations

import doctest
import logging
import re
from collections.abc import Callable, Sequence

from jupiter.evaluator.items.item import SessionRunner
from jupiter.records import Document
from jupiter.sandbox import Example, Limits, Outcome, Sandbox, SandboxUnavailable, Session

__all__ = ["run_sessions"]

log = logging.getLogger(__name__)

SESSION_LIMITS = Limits(wall_s=60, step_wall_s=5, cpu_s=20, output_bytes=8 << 20)
"""A documented example takes milliseconds; five seconds, even on a busy machine, are an endless loop."""
DOCUMENTS_PER_ENCLOSURE = 16
"""An enclosure costs 40 ms to set up, a session in it 2 ms."""
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")

Progress = Callable[[int, int], None]
"""Called with documents done and documents in all, in the thread that runs them."""
_Key = tuple[str, tuple[str, ...]]


def run_sessions(
    documents: Sequence[Document], progress: Progress, *, limits: Limits = SESSION_LIMITS
) -> SessionRunner | None:
    """Run the examples of `documents`; return the function that tells what each statement printed.

    None where nothing can be enclosed: then no example becomes an item (fail closed). Blocks.
    """
    try:
        sandbox = Sandbox(limits=limits)
    except SandboxUnavailable as error:
        log.warning("no sandbox, so the benchmark gets no executed examples: %s", error)
        return None
    printed: dict[_Key, list[str | None]] = {}
    asked = [(document, sources) for document in documents if (sources := _sources(document))]
    for start in range(0, len(asked), DOCUMENTS_PER_ENCLOSURE):
        batch = asked[start : start + DOCUMENTS_PER_ENCLOSURE]
        outcomes = sandbox.run_sessions([_session(document, sources) for document, sources in batch])
        for (document, sources), found in zip(batch, outcomes, strict=True):
            if found[0].status not in ("died", "skipped"):  # else a neighbour may have ended it: asked again, alone
                printed[document.document_id, sources] = _printed(found)
        progress(start + len(batch), len(asked))

    def run_session(document: Document, sources: Sequence[str]) -> list[str | None]:
        """Return what each statement printed, None where it raised, timed out or was not reached."""
        key = document.document_id, tuple(sources)
        if key not in printed:
            (found,) = sandbox.run_sessions([_session(document, key[1])])
            printed[key] = _printed(found)
        return printed[key]

    return run_session


def _sources(document: Document) -> tuple[str, ...]:
    if document.kind != "example":
        return ()
    try:
        return tuple(example.source for example in doctest.DocTestParser().get_examples(document.text))
    except ValueError:
        return ()


def _session(document: Document, sources: Sequence[str]) -> Session:
    return Session(examples=tuple(Example(source=source) for source in sources), setup=_setup(document.group))


def _setup(group: str) -> str:
    """Return the imports that examples of a module's documentation leave out."""
    if not _MODULE.fullmatch(group):
        return ""
    return f"try:\n    import {group}\n    from {group} import *\nexcept Exception:\n    pass\n"


def _printed(outcomes: Sequence[Outcome]) -> list[str | None]:
    return [outcome.stdout if outcome.status == "returned" and not outcome.truncated else None for outcome in outcomes]
