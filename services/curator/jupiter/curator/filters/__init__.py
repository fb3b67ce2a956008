"""The steps of the curator, one file each; a file added here is a filter added to the pipeline.

Owns: finding the filters and putting them in order. Does not know: any of them by name.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from jupiter.curator.filters.base import Context, Filter, Verdict

__all__ = ["Context", "Filter", "Verdict", "filter_types"]


@cache
def filter_types() -> tuple[type[Filter], ...]:
    """Return every filter class of this package in the order in which they judge.

    Raises AssertionError when two share an `order`: which came first would then be chance.
    """
    found: dict[int, type[Filter]] = {}
    for module_info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{module_info.name}")
        for member in vars(module).values():
            if not (isinstance(member, type) and issubclass(member, Filter) and member.__module__ == module.__name__):
                continue
            if member is Filter:
                continue
            other = found.setdefault(member.order, member)
            if other is not member:
                raise AssertionError(f"{member.__name__} and {other.__name__} both have order {member.order}")
    return tuple(found[order] for order in sorted(found))
