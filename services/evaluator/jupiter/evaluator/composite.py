"""The composite score S = 0.40 accuracy + 0.30 coherence + 0.30 knowledge.

Owns: the weighted mean. Does not know: uncertainty (`statistics`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jupiter.evaluator.benchmark import DIMENSION_WEIGHTS
from jupiter.evaluator.items import Item
from jupiter.records import Record

__all__ = ["Composite", "composite", "item_weights"]


class Composite(Record):
    value: float
    """0 to 1."""
    dimensions: Mapping[str, float]
    """Dimension to mean item score."""
    kinds: Mapping[str, float]
    """Kind of item to mean item score."""
    counts: Mapping[str, int]
    """Dimension to number of items."""


def item_weights(items: Sequence[Item]) -> list[float]:
    """Return each item's weight in the composite; they add up to 1.

    A dimension's weight is shared evenly by its items. Where a dimension has no item, the others'
    weights are scaled up, so that a subset (one half) still scores 0 to 1.
    """
    counts: dict[str, int] = {}
    for item in items:
        counts[item.dimension] = counts.get(item.dimension, 0) + 1
    total = sum(DIMENSION_WEIGHTS[item.dimension] / counts[item.dimension] for item in items)
    return [DIMENSION_WEIGHTS[item.dimension] / counts[item.dimension] / total for item in items]


def _means(items: Sequence[Item], scores: Mapping[str, float], key: str) -> dict[str, float]:
    grouped: dict[str, list[float]] = {}
    for item in items:
        grouped.setdefault(getattr(item, key), []).append(scores[item.item_id])
    return {name: sum(values) / len(values) for name, values in sorted(grouped.items())}


def composite(items: Sequence[Item], scores: Mapping[str, float]) -> Composite:
    """Return the composite of one model's item scores; KeyError when an item has no score."""
    if not items:
        raise ValueError("no items to score: build the benchmark first")
    counts: dict[str, int] = {}
    for item in items:
        counts[item.dimension] = counts.get(item.dimension, 0) + 1
    value = sum(weight * scores[item.item_id] for weight, item in zip(item_weights(items), items, strict=True))
    return Composite(
        value=value,
        dimensions=_means(items, scores, "dimension"),
        kinds=_means(items, scores, "kind"),
        counts=counts,
    )
