"""What earlier shards hold: the memory behind deduplication, caps and repeats.

Owns: the projection of `shards.<domain>` that filters and mixer ask. Does not know: how shards are read (`knowledge`).

It is derived state and changes only by `apply`, in stream order: a curator that was killed rebuilds exactly this.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from datasketch import MinHash

from jupiter.curator import wording
from jupiter.curator.candidate import digest_of_text, training_text
from jupiter.curator.signatures import NearDuplicateIndex
from jupiter.records import Sample

__all__ = ["History"]


class History:
    """See the module."""

    def __init__(self, *, near_duplicate_threshold: float) -> None:
        self.sequence = 0
        """The stream sequence of the last shard read."""
        self.index = NearDuplicateIndex(threshold=near_duplicate_threshold)
        """The synthetic samples of all shards."""
        self.real_uses: Counter[str] = Counter()
        """Real sample id -> shards it is in."""
        self._shards: set[str] = set()
        self._digests: set[str] = set()
        self._answers: dict[str, str] = {}
        self._samples_of: Counter[str] = Counter()
        self._wordings: dict[str, list[tuple[tuple[str, ...], tuple[str, ...]]]] = defaultdict(list)

    def __len__(self) -> int:
        """How many shards were applied."""
        return len(self._shards)

    def has_text(self, digest: str) -> bool:
        return digest in self._digests

    def samples_of(self, document_id: str) -> int:
        """Return how many synthetic samples of the document are in shards."""
        return self._samples_of[document_id]

    def answer_to(self, question: str) -> str | None:
        """Return the first response to an instruction (`candidate.digest_of_text` of it) in any shard."""
        return self._answers.get(question)

    def wordings_of(self, document_id: str) -> Sequence[tuple[tuple[str, ...], tuple[str, ...]]]:
        """Return instruction and response words of the document's synthetic samples."""
        return self._wordings.get(document_id, ())

    def apply(self, shard_id: str, samples: Sequence[Sample], signatures: Mapping[str, MinHash]) -> None:
        """Take in one committed shard; one that was applied before changes nothing (events may come twice)."""
        if shard_id in self._shards:
            return
        self._shards.add(shard_id)
        for sample in samples:
            if sample.origin == "real":
                self.real_uses[sample.sample_id] += 1
                continue
            self._digests.add(digest_of_text(training_text(sample)))
            self._answers.setdefault(digest_of_text(sample.instruction or ""), sample.response)
            self._samples_of[sample.document_id] += 1
            self._wordings[sample.document_id].append(
                (wording.words(sample.instruction or ""), wording.words(sample.response))
            )
            self.index.add(sample.sample_id, signatures[sample.sample_id])
