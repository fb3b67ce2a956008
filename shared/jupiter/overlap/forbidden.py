"""What must never be trained on: the texts of a frozen benchmark.

Owns: the overlap rule, and counting by it what samples hold. Does not know: what the items ask or how they are scored,
where the benchmark lies, what follows from an overlap.

The rule: a sample is contaminated when it shares a run of 13 words with an item (GPT-3, Brown et al. 2020, appendix C,
which takes runs of 8 to 13 words by the length of the items), when it contains a whole item of 8 to 12 words, or when
it or its response is a near-duplicate of an item. Items under 8 words (`Return the sine of x.`) are matched only as the
whole text: such a sentence describes many things. A run that more than ten items share is the wording of a template,
not content (GPT-3 drops them from the match list for the same reason).

The same rule keeps samples out of shards (curator), counts those that came in all the same (`curator.decontaminate`
off), and looks for the items of a later benchmark in shards that are older than it (evaluator).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from datasketch import MinHash

from jupiter.contamination import ShardCount
from jupiter.overlap import wording
from jupiter.overlap.signatures import NearDuplicateIndex, own_size, sketch
from jupiter.records import Sample

__all__ = ["ForbiddenItem", "ForbiddenTexts", "count", "forbidden_items", "training_text"]

RUN_WORDS = 13
SHORT_WORDS_MIN = 8
TEMPLATE_ITEMS_MIN = 11

Run = tuple[str, ...]


def training_text(sample: Sample) -> str:
    """Return what the student will read: instruction and response, or the plain document."""
    return sample.response if sample.instruction is None else f"{sample.instruction}\n{sample.response}"


@dataclass(frozen=True)
class ForbiddenItem:
    """One item of the benchmark, or a worked example or a text of the general suite that comes with it."""

    name: str
    half: str
    """`development` or `confirmation`; empty where it is of neither."""
    texts: tuple[str, ...]


def forbidden_items(lines: Iterable[str]) -> list[ForbiddenItem]:
    """Return what the lines of a benchmark's `items.jsonl.zst` name; texts of the general suite have no id or half."""
    records = (json.loads(line) for line in lines)
    return [
        ForbiddenItem(record.get("item_id", f"general-{number}"), record.get("half", ""), tuple(record["texts"]))
        for number, record in enumerate(records)
    ]


class ForbiddenTexts:
    """The benchmark's texts, indexed for lookup by runs of words and by similarity."""

    def __init__(self, items: Iterable[ForbiddenItem], *, threshold: float, digest: str) -> None:
        """Index the texts of each item; `threshold` is the similarity of a near-duplicate, `digest` the benchmark's."""
        self.digest = digest
        self.items = {item.name: item for item in items}
        runs: defaultdict[Run, set[str]] = defaultdict(set)
        self._whole: defaultdict[Run, set[str]] = defaultdict(set)
        self._index = NearDuplicateIndex(threshold=threshold)
        for item in self.items.values():
            for words in filter(None, map(wording.words, item.texts)):
                for run in _runs(words):
                    runs[run].add(item.name)
                if len(words) < SHORT_WORDS_MIN:
                    self._whole[words].add(item.name)
        self._runs = {run: names for run, names in runs.items() if len(names) < TEMPLATE_ITEMS_MIN}
        self._lengths = sorted({len(run) for run in self._runs})
        self._indexed = [
            (item.name, words)
            for item in self.items.values()
            for words in map(wording.words, item.texts)
            if len(words) >= SHORT_WORDS_MIN
        ]
        for number, signatures in enumerate(sketch([words for _, words in self._indexed])):
            self._index.add(str(number), signatures[own_size(len(self._indexed[number][1]))])

    def overlap(self, words: Run, sketches: Sequence[Mapping[int, MinHash]]) -> str | None:
        """Return why a text may not be trained on, as a counter's name, or None.

        `words` is the whole training text; `sketches` are those of the text and of its response alone.
        """
        for length in self._lengths:
            if any(run in self._runs for run in wording.ngrams(words, length)):
                return "contaminated_run" if length == RUN_WORDS else "contaminated_item"
        if words in self._whole:
            return "contaminated_item"
        if any(self._index.find(signatures) is not None for signatures in sketches):
            return "contaminated_near_duplicate"
        return None

    def overlapped(self, words: Run, sketches: Sequence[Mapping[int, MinHash]]) -> frozenset[str]:
        """Return the names of the items that a text overlaps with: some exactly when `overlap` gives a reason."""
        names: set[str] = set(self._whole.get(words, ()))
        for length in self._lengths:
            for run in wording.ngrams(words, length):
                names |= self._runs.get(run, set())
        for signatures in sketches:
            found = self._index.find(signatures)
            if found is not None:
                names.add(self._indexed[int(found[0])][0])
        return frozenset(names)


def _runs(words: Run) -> Iterable[Run]:
    if len(words) >= RUN_WORDS:
        return wording.ngrams(words, RUN_WORDS)
    return [words] if len(words) >= SHORT_WORDS_MIN else []


def count(samples: Sequence[Sample], forbidden: ForbiddenTexts) -> ShardCount:
    """Return what the samples of one shard hold of the benchmark, as the curator counts when it makes the shard."""
    word_lists = [wording.words(training_text(sample)) for sample in samples]
    whole, responses = sketch(word_lists), sketch([wording.words(sample.response) for sample in samples])
    found = [forbidden.overlapped(*one) for one in zip(word_lists, zip(whole, responses, strict=True), strict=True)]
    items = frozenset[str]().union(*found)
    return ShardCount(
        benchmark=forbidden.digest,
        synthetic=sum(bool(names) for names, sample in zip(found, samples, strict=True) if sample.origin != "real"),
        real=sum(bool(names) for names, sample in zip(found, samples, strict=True) if sample.origin == "real"),
        items={name: forbidden.items[name].half for name in sorted(items)},
    )
