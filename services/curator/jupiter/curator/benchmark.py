"""What must never be trained on: the texts of the frozen benchmark.

Owns: finding the frozen benchmark and the overlap rule. Does not know: what the items ask or how they are scored.

The rule: a sample is contaminated when it shares a run of 13 words with an item (GPT-3, Brown et al. 2020, appendix C,
which takes runs of 8 to 13 words by the length of the items), when it contains a whole item of 8 to 12 words, or when
it or its response is a near-duplicate of an item. Items under 8 words (`Return the sine of x.`) are matched only as the
whole text: such a sentence describes many things. A run that more than ten items share is the wording of a template,
not content (GPT-3 drops them from the match list for the same reason).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from datasketch import MinHash

from jupiter import keys, manifests
from jupiter.blobs import Blobs
from jupiter.curator import wording
from jupiter.curator.signatures import NearDuplicateIndex, own_size, sketch
from jupiter.errors import IntegrityError
from jupiter.sample_files import read_json_lines

__all__ = ["ForbiddenTexts", "read_forbidden_texts"]

RUN_WORDS = 13
SHORT_WORDS_MIN = 8
TEMPLATE_ITEMS_MIN = 11
ITEMS_FILE = "items.jsonl.zst"

Run = tuple[str, ...]


class ForbiddenTexts:
    """The benchmark's texts, indexed for lookup by runs of words and by similarity."""

    def __init__(self, items: Iterable[Sequence[str]], *, threshold: float) -> None:
        """Index the texts of each item; `threshold` is the similarity of a near-duplicate."""
        runs: Counter[Run] = Counter()
        self._whole: set[Run] = set()
        self._index = NearDuplicateIndex(threshold=threshold)
        for texts in items:
            runs.update({run for text in texts for run in _runs(wording.words(text))})
            self._whole.update(words for text in texts if 0 < len(words := wording.words(text)) < SHORT_WORDS_MIN)
        self._runs = frozenset(run for run, count in runs.items() if count < TEMPLATE_ITEMS_MIN)
        self._lengths = sorted({len(run) for run in self._runs})
        self._index_texts([words for texts in items for text in texts if (words := wording.words(text))])

    def _index_texts(self, texts: Sequence[Run]) -> None:
        for number, (words, signatures) in enumerate(zip(texts, sketch(texts), strict=True)):
            if len(words) >= SHORT_WORDS_MIN:
                self._index.add(str(number), signatures[own_size(len(words))])

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


def _runs(words: Run) -> Iterable[Run]:
    if len(words) >= RUN_WORDS:
        return wording.ngrams(words, RUN_WORDS)
    return [words] if len(words) >= SHORT_WORDS_MIN else []


def read_forbidden_texts(blobs: Blobs, domain: str, *, threshold: float) -> ForbiddenTexts | None:
    """Return the frozen benchmark's texts, None while no benchmark is frozen. Raises IntegrityError."""
    pointer_key = f"benchmarks/{domain}/frozen"
    if blobs.stat(pointer_key) is None:
        return None
    pointer = json.loads(blobs.get(pointer_key))
    manifest = manifests.read(blobs, pointer["manifest_key"], sha256=pointer["manifest_sha256"]).manifest
    lines = read_json_lines(manifests.download_bytes(blobs, manifest.file(ITEMS_FILE)))
    texts = [tuple(json.loads(line)["texts"]) for line in lines]
    if not texts:
        raise IntegrityError(f"benchmark {keys.benchmark_prefix(domain, pointer['digest'])} has no items")
    return ForbiddenTexts(texts, threshold=threshold)
