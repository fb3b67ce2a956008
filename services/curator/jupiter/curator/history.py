"""What earlier shards hold: the memory behind deduplication, caps and repeats.

Owns: the projection of `shards.<domain>` that filters and mixer ask, and views of it that leave shards out.
Does not know: how shards are read (`knowledge`).

It is derived state and changes only by `apply`, in stream order: a curator that was killed rebuilds exactly this.
"""

from __future__ import annotations

import copy
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from datasketch import MinHash

from jupiter.curator.candidate import digest_of_text
from jupiter.overlap import wording
from jupiter.overlap.forbidden import training_text
from jupiter.overlap.signatures import NearDuplicateIndex, Store
from jupiter.records import Sample

__all__ = ["History"]

Wording = tuple[tuple[str, ...], tuple[str, ...]]
"""Instruction and response of a sample, as words."""


class History:
    """See the module. Every entry says which shard it is of, so that a shard can be left out (`without`)."""

    def __init__(self, *, near_duplicate_threshold: float, store: Store | None = None) -> None:
        self.sequence = 0
        """The stream sequence of the last shard read."""
        self.index = NearDuplicateIndex(threshold=near_duplicate_threshold, store=store)
        """The synthetic samples of all shards."""
        self.real_uses: Counter[str] = Counter()
        """Real sample id -> shards it is in."""
        self._shards: dict[str, tuple[frozenset[str], tuple[str, ...]]] = {}
        """Shard -> its synthetic samples, its real ones."""
        self._left_out: frozenset[str] = frozenset()
        self._digests: dict[str, list[str]] = defaultdict(list)
        self._answers: dict[str, list[tuple[str, str]]] = defaultdict(list)
        self._wordings: dict[str, list[tuple[str, Wording]]] = defaultdict(list)

    def __len__(self) -> int:
        """How many shards were applied."""
        return len(self._shards.keys() - self._left_out)

    def has_text(self, digest: str) -> bool:
        return any(shard_id not in self._left_out for shard_id in self._digests.get(digest, ()))

    def samples_of(self, document_id: str) -> int:
        """Return how many synthetic samples of the document are in shards."""
        return len(self.wordings_of(document_id))

    def answer_to(self, question: str) -> str | None:
        """Return the first response to an instruction (`candidate.digest_of_text` of it) in any shard."""
        answers = self._answers.get(question, ())
        return next((response for shard_id, response in answers if shard_id not in self._left_out), None)

    def wordings_of(self, document_id: str) -> Sequence[Wording]:
        """Return instruction and response words of the document's synthetic samples."""
        wordings = self._wordings.get(document_id, ())
        return [worded for shard_id, worded in wordings if shard_id not in self._left_out]

    def without(self, shard_id: str) -> History:
        """Return the history as if that shard had never been: a view to read from until the next `apply`."""
        synthetic, real = self._shards.get(shard_id, (frozenset(), ()))
        view = copy.copy(self)
        view._left_out = self._left_out | {shard_id}
        view.index = self.index.without(synthetic)
        view.real_uses = self.real_uses - Counter(real)
        return view

    def apply(self, shard_id: str, samples: Sequence[Sample], signatures: Mapping[str, MinHash]) -> None:
        """Take in one committed shard; one that was applied before changes nothing (events may come twice).

        What may fail comes first: an error of a shared store leaves the history as it was, to be tried again.
        """
        if shard_id in self._shards:
            return
        if self._left_out:
            raise AssertionError("a view of the history is read only: apply the shard to the history itself")
        synthetic = [sample for sample in samples if sample.origin != "real"]
        real = tuple(sample.sample_id for sample in samples if sample.origin == "real")
        self.index.add_group(shard_id, {sample.sample_id: signatures[sample.sample_id] for sample in synthetic})
        self._shards[shard_id] = (frozenset(sample.sample_id for sample in synthetic), real)
        self.real_uses.update(real)
        for sample in synthetic:
            self._digests[digest_of_text(training_text(sample))].append(shard_id)
            self._answers[digest_of_text(sample.instruction or "")].append((shard_id, sample.response))
            worded = wording.words(sample.instruction or ""), wording.words(sample.response)
            self._wordings[sample.document_id].append((shard_id, worded))
