"""Is a short series of measurements rising? Two statistics that need no model of the noise.

Owns: the Theil-Sen slope (Theil 1950, Sen 1968) and the Mann-Kendall test (Mann 1945, Kendall 1975).
Does not know: what the numbers are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from statistics import median

__all__ = ["rise_p_value", "slope"]


def slope(values: Sequence[float]) -> float:
    """Return the Theil-Sen slope per place: the median of the slopes of all pairs."""
    return median((values[j] - values[i]) / (j - i) for i, j in combinations(range(len(values)), 2))


def rise_p_value(values: Sequence[float]) -> float:
    """Return how often a series in random order rises as much as this one, by Kendall's statistic.

    Exact: `orders[k]` counts the orders with k descents among all pairs (Kendall 1938). Ties count half, which makes
    the statistic smaller and the answer, if anything, too large.
    """
    orders = [1]
    for size in range(2, len(values) + 1):
        grown = [0] * (len(orders) + size - 1)
        for descents, ways in enumerate(orders):
            for more in range(size):
                grown[descents + more] += ways
        orders = grown
    pairs = list(combinations(values, 2))
    descents = math.floor(sum(0.5 if later == earlier else later < earlier for earlier, later in pairs) + 0.5)
    return sum(orders[: descents + 1]) / sum(orders)
