"""Built-in sources of documents: one module or package each, named in a domain's `source`.

Owns: finding a source by name. Does not know: any source; each offers
`published_documents(*, entries_max: int | None) -> Iterator[PublishedDocument]`.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Iterator

from jupiter.errors import ConfigError
from jupiter.records import PublishedDocument

__all__ = ["source", "source_names"]


def source_names() -> tuple[str, ...]:
    """Return the names of the built-in sources."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def source(name: str, *, entries_max: int | None = None) -> Iterator[PublishedDocument]:
    """Yield the documents of a built-in source, in a fixed order. Raises ConfigError for an unknown name.

    `entries_max` limits how many entries (things described) the source covers; None means all it has.
    """
    known = source_names()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}"
        raise ConfigError(f"there is no built-in source {name!r}; {hint}")
    documents: Iterator[PublishedDocument] = importlib.import_module(f"{__name__}.{name}").published_documents(
        entries_max=entries_max
    )
    return documents
