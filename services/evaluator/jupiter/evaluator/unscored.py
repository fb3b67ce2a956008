"""The one refusal of scoring: a model that yields no usable numbers gets none.

Owns: the error. Does not know: what was being scored.
"""

from __future__ import annotations

from jupiter.errors import JupiterError

__all__ = ["Unscored"]


class Unscored(JupiterError):
    """An item has no usable score: the evaluation cannot be completed, and nothing is put in its place."""
