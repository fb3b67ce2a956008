"""Both models' answers side by side: as scored items, as lines to read, and as figures that decide nothing.

Owns: how two examinations on one half become item results and the file `items.jsonl.zst`.
Does not know: reports, confirmations, and which half it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from jupiter.evaluator.examination import Examined
from jupiter.evaluator.items import Half, Item, item_kinds
from jupiter.evaluator.judging import judged_items
from jupiter.evaluator.scoring import ItemScore
from jupiter.reports import ItemResult, Judgement
from jupiter.sample_files import write_json_lines

__all__ = ["ITEMS_FILE", "Both"]

ITEMS_FILE = "items.jsonl.zst"


@dataclass(frozen=True, kw_only=True)
class Both:
    """Candidate and generator after one run on the same half of the benchmark."""

    half: Half
    items: tuple[Item, ...]
    """Of that half, all of them."""
    candidate: Examined
    generator: Examined
    candidate_weights_sha256: str
    generator_weights_sha256: str
    judgement: Judgement | None
    """None where no judge is configured."""
    wall_s: float

    def results(self) -> tuple[ItemResult, ...]:
        """Return every item with both scores, those of a usable judge included."""
        scored = tuple(
            ItemResult(
                item_id=item.item_id,
                dimension=item.dimension,
                kind=item.kind,
                cluster=item.cluster,
                half=item.half,
                candidate=self.candidate.scores[item.item_id].score,
                generator=self.generator.scores[item.item_id].score,
            )
            for item in self.items
        )
        return scored + judged_items(self.judgement, half=self.half)

    def lines(self) -> bytes:
        """Return every item with what was asked, what is right and what both models answered, as a file."""
        return write_json_lines(self._lines())

    def _lines(self) -> Iterator[Mapping[str, Any]]:
        for item in self.items:
            yield {
                "item_id": item.item_id,
                "dimension": item.dimension,
                "kind": item.kind,
                "cluster": item.cluster,
                "half": item.half,
                "fields": dict(item.fields),
                "right_answer": item.answer,
                "candidate": _answer_of(self.candidate.scores[item.item_id]),
                "generator": _answer_of(self.generator.scores[item.item_id]),
            }

    def figures(self) -> Mapping[str, Any]:
        """Return what is reported but decides nothing: time, wins, scores by kind, bits per byte."""
        results = self.results()
        return {
            "seconds": {"candidate": self.candidate.seconds, "generator": self.generator.seconds},
            "clusters": len({item.cluster for item in results}),
            "wins": sum(item.candidate > item.generator for item in results),
            "losses": sum(item.candidate < item.generator for item in results),
            "kinds": _by_kind(results),
            "bits_per_byte": {
                "candidate": _bits_per_byte(self.candidate, self.items),
                "generator": _bits_per_byte(self.generator, self.items),
            },
        }


def _answer_of(score: ItemScore) -> Mapping[str, Any]:
    return {"answer": score.answer, "score": score.score, "log_probability": score.log_probability}


def _by_kind(items: Sequence[ItemResult]) -> Mapping[str, Mapping[str, float]]:
    kinds: dict[str, Mapping[str, float]] = {}
    for kind in sorted({item.kind for item in items}):
        chosen = [item for item in items if item.kind == kind]
        kinds[kind] = {
            "items": len(chosen),
            "candidate": fmean(item.candidate for item in chosen),
            "generator": fmean(item.generator for item in chosen),
        }
    return kinds


def _bits_per_byte(examined: Examined, items: Sequence[Item]) -> float | None:
    """Return the mean over the items that have a right answer, and so a likelihood of it: lower is better."""
    answered = [item for item in items if item_kinds()[item.kind].method != "health"]
    if not answered:
        return None
    return fmean(-examined.scores[item.item_id].log_probability / math.log(2) for item in answered)
