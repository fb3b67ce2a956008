"""The blocks that a transformer is a stack of.

Owns: finding them in any model of transformers. Does not know: what is done to each (sharding, compiling).
"""

from __future__ import annotations

from typing import Any

__all__ = ["blocks_of"]


def blocks_of(model: Any) -> list[Any]:
    """Return the modules that transformers keeps on one device, which are the layers; none for a model without."""
    names = set(model._no_split_modules or ())
    return [module for module in model.modules() if type(module).__name__ in names]
