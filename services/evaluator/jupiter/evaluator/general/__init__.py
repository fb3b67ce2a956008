"""What a model can do besides the domain: a small suite that ships with the project (`data/SOURCE.md`).

`suite` is the data, `examining` one model's figures on it.
"""

from jupiter.evaluator.general.examining import examine
from jupiter.evaluator.general.suite import (
    SUITE,
    Cloze,
    Passage,
    forbidden_texts,
    general_items,
    general_of,
    general_total,
    suite_digest,
)

__all__ = [
    "SUITE",
    "Cloze",
    "Passage",
    "examine",
    "forbidden_texts",
    "general_items",
    "general_of",
    "general_total",
    "suite_digest",
]
