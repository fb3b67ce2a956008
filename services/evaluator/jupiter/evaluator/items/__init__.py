"""The kinds of benchmark items: one module each, found by listing this package.

Owns: the registry. Does not know: any kind by name.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from jupiter.evaluator.items.item import Corpus, Dimension, Half, Item, ItemKind, Method, PromptSetting

__all__ = ["Corpus", "Dimension", "Half", "Item", "ItemKind", "Method", "PromptSetting", "item_kinds"]


@cache
def item_kinds() -> dict[str, ItemKind]:
    """Return name to kind, for every module here that defines `KIND`."""
    found: dict[str, ItemKind] = {}
    for module_info in sorted(pkgutil.iter_modules(__path__), key=lambda info: info.name):
        module = importlib.import_module(f"{__name__}.{module_info.name}")
        kind: ItemKind | None = getattr(module, "KIND", None)
        if kind is not None:
            found[kind.name] = kind
    return found
