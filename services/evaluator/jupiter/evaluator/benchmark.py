"""The frozen benchmark: which items, which worked examples, which band.

Owns: quotas, selection, the digest. Does not know: kinds by name (`items`) nor models (`scoring`).
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, chain, cycle, pairwise

from jupiter.evaluator.health import Band, band_of
from jupiter.evaluator.items import Corpus, Dimension, Half, Item, ItemKind, item_kinds
from jupiter.evaluator.items.passages import passages
from jupiter.records import Record, digest_of

__all__ = [
    "DIMENSION_SHARE_MIN",
    "DIMENSION_WEIGHTS",
    "HALVES",
    "Benchmark",
    "BenchmarkTooSmallError",
    "build_benchmark",
]

DIMENSION_WEIGHTS: Mapping[Dimension, float] = {"accuracy": 0.40, "coherence": 0.30, "knowledge": 0.30}
"""The customer's composite; items are shared out likewise."""
WORKED_EXAMPLES = 8
"""Items per kind set aside as worked examples; they are never scored."""
CLUSTER_SHARE_MAX = 0.12
"""Largest share of one document group in the items of a kind."""
CLUSTER_ITEMS_MIN = 4
"""A group may always give so many, however small the kind."""
DIMENSION_SHARE_MIN = 0.75
"""Least part of its share that a dimension must give by itself, so that none is left to a handful of items."""
HALVES: tuple[Half, Half] = ("confirmation", "development")
"""The confirmation half first: it has the last word, so an odd item is its own."""
TURNS: tuple[Half, ...] = ("confirmation", "development", "confirmation", "confirmation")
"""Which half the next item is for: three in four are sealed. The development half only screens, the sealed one must
prove at ever smaller levels (docs/decisions/0011)."""


class BenchmarkTooSmallError(ValueError):
    """The held-out documents give no items for a dimension."""


class Benchmark(Record):
    """Everything scoring needs besides a model. Immutable; identified by `digest`."""

    domain: str
    seed: int
    items: tuple[Item, ...]
    examples: Mapping[str, tuple[Item, ...]]
    """Kind to worked examples."""
    band: Band

    @property
    def digest(self) -> str:
        return digest_of(self.model_dump(mode="json"))

    def half(self, half: Half) -> tuple[Item, ...]:
        """Return the items of one half: development, asked at every look, or confirmation, which stays sealed."""
        return tuple(item for item in self.items if item.half == half)

    def counts(self) -> dict[str, dict[str, int]]:
        """Return dimension to kind to number of items."""
        counted: dict[str, dict[str, int]] = {dimension: {} for dimension in DIMENSION_WEIGHTS}
        for item in self.items:
            counted[item.dimension][item.kind] = counted[item.dimension].get(item.kind, 0) + 1
        return counted


def _worked_examples(candidates: Sequence[Item]) -> tuple[Item, ...]:
    """Return the shortest-asked items of different clusters, from the development half."""
    chosen: list[Item] = []
    answers: set[str] = set()
    pool = [item for item in candidates if item.half == "development"][:120]
    for item in sorted(pool, key=lambda item: sum(map(len, item.fields.values())) // 40):
        if len(chosen) < WORKED_EXAMPLES and item.answer not in answers:
            chosen.append(item)
            answers.add(item.answer)
    return tuple(chosen)


def _unique(candidates: Sequence[Item]) -> list[Item]:
    """Return the items, each once: two documents may ask the very same question, and one answer counts once."""
    first: dict[str, Item] = {}
    for item in candidates:
        first.setdefault(item.item_id, item)
    return list(first.values())


def _select(candidates: Sequence[Item], wanted: int, *, balanced: bool) -> list[Item]:
    """Take `wanted` items, the halves in TURNS, no cluster above its cap.

    Balanced, it ends where the half whose turn it is has none left; else the other half goes on alone.
    """
    cap = max(CLUSTER_ITEMS_MIN, math.ceil(CLUSTER_SHARE_MAX * wanted))
    taken: list[Item] = []
    per_cluster: Counter[str] = Counter()
    queues = {half: [item for item in candidates if item.half == half] for half in HALVES}
    turns = cycle(TURNS)
    while len(taken) < wanted and any(queues.values()):
        half, before = next(turns), len(taken)
        while queues[half] and len(taken) == before:
            item = queues[half].pop(0)
            if per_cluster[item.cluster] < cap:
                per_cluster[item.cluster] += 1
                taken.append(item)
        if balanced and len(taken) == before:
            break
    return taken


@dataclass(frozen=True)
class _Source:
    """Something that gives items: a kind, or a dimension."""

    weight: float
    draw: Callable[[int], list[Item]]
    """Return so many items, or all that there are."""


def _share_out(sources: Sequence[_Source], wanted: int) -> list[list[Item]]:
    """Draw `wanted` items from the sources by weight; what one cannot give, the others do."""
    drawn: list[list[Item]] = [[] for _ in sources]
    open_places = list(range(len(sources)))
    while (missing := wanted - sum(map(len, drawn))) > 0 and open_places:
        weight = sum(sources[place].weight for place in open_places)
        for place in list(open_places):
            more = min(max(1, round(missing * sources[place].weight / weight)), wanted - sum(map(len, drawn)))
            target = len(drawn[place]) + more
            drawn[place] = sources[place].draw(target)
            if len(drawn[place]) < target:
                open_places.remove(place)
    return drawn


def _of_dimension(
    kinds: Sequence[ItemKind], pools: Mapping[str, Sequence[Item]], wanted: int, *, balanced: bool
) -> list[Item]:
    """Share `wanted` items among the kinds of one dimension."""
    sources = [
        _Source(kind.weight, partial(_select, pools[kind.name], balanced=balanced))
        for kind in kinds
        if pools[kind.name]
    ]
    return list(chain.from_iterable(_share_out(sources, wanted)))


def _choose(
    kinds: Sequence[ItemKind], pools: Mapping[str, Sequence[Item]], samples: int
) -> Mapping[Dimension, list[Item]]:
    """Return items by dimension: with the same mixture of kinds in both halves if that gives `samples` of them.

    Then a dimension may fall short of its share, down to DIMENSION_SHARE_MIN of it, and the others make up for it. Else
    each dimension gets its share, and of a kind that one half has too few of, the other half has more.
    """
    of_dimension = {name: [kind for kind in kinds if kind.dimension == name] for name in DIMENSION_WEIGHTS}
    shares = _shares_of(samples)
    sources = [
        _Source(weight, partial(_of_dimension, of_dimension[name], pools, balanced=True))
        for name, weight in DIMENSION_WEIGHTS.items()
    ]
    balanced = dict(zip(DIMENSION_WEIGHTS, _share_out(sources, samples), strict=True))
    enough = all(len(balanced[name]) >= DIMENSION_SHARE_MIN * share for name, share in shares.items())
    if enough and sum(map(len, balanced.values())) >= samples:
        return balanced
    return {name: _of_dimension(of_dimension[name], pools, share, balanced=False) for name, share in shares.items()}


def _shares_of(samples: int) -> dict[Dimension, int]:
    """Return how many items each dimension gets by weight; together they are `samples`."""
    bounds = [round(samples * share) for share in accumulate(DIMENSION_WEIGHTS.values(), initial=0.0)]
    return {name: high - low for name, (low, high) in zip(DIMENSION_WEIGHTS, pairwise(bounds), strict=True)}


def _nothing_of(dimension: Dimension, tried: Sequence[str], corpus: Corpus, only_kinds: Sequence[str]) -> str:
    """Say what was there, what was tried on it, and what would help."""
    seen = ", ".join(f"{count} {kind}" for kind, count in sorted(Counter(doc.kind for doc in corpus.held_out).items()))
    others = sorted(name for name, kind in item_kinds().items() if kind.dimension == dimension and name not in tried)
    allow = f", or let benchmark_kinds of the domain name {' or '.join(others)} too" if only_kinds and others else ""
    return (
        f"no {dimension} item can be made from {len(corpus.held_out)} held-out documents ({seen or 'none'}) by "
        f"{', '.join(tried) or 'no kind of item'}; publish held-out reference entries (kind api), examples "
        f"(kind example) or more prose in paragraphs of several sentences (kind text){allow}"
    )


def build_benchmark(
    corpus: Corpus,
    *,
    domain: str,
    samples: int,
    seed: int,
    only_kinds: Sequence[str] = (),
    excluded: Collection[str] = (),
) -> Benchmark:
    """Build the benchmark, of `only_kinds` if any are named, without the items `excluded`.

    Raises BenchmarkTooSmallError for an empty dimension.
    """
    kinds = {name: kind for name, kind in item_kinds().items() if not only_kinds or name in only_kinds}
    pools: dict[str, list[Item]] = {}
    examples: dict[str, tuple[Item, ...]] = {}
    for name, kind in kinds.items():
        made = _unique(kind.build(corpus, random.Random(f"{seed}:{name}")))  # noqa: S311 - reproducible draw
        candidates = [item for item in made if item.item_id not in excluded]
        examples[name] = _worked_examples(candidates) if any(s.shots for s in kind.settings) else ()
        reserved = {item.item_id for item in examples[name]}
        pools[name] = [item for item in candidates if item.item_id not in reserved]
    items: list[Item] = []
    for dimension, chosen in _choose(list(kinds.values()), pools, samples).items():
        if not chosen:
            tried = [kind.name for kind in kinds.values() if kind.dimension == dimension]
            raise BenchmarkTooSmallError(_nothing_of(dimension, tried, corpus, only_kinds))
        items += chosen
    real = [part for doc in corpus.held_out for part in (passages(doc.text) if doc.kind == "text" else [doc.text])]
    return Benchmark(domain=domain, seed=seed, items=tuple(items), examples=examples, band=band_of(real))
