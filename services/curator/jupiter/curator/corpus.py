"""The real documents as the curator knows them: a projection of `corpus.<domain>` without what was recalled.

Owns: which documents may be trained on, their passages, the real samples made from them, their duplicates' index.
Does not know: how the log and the store are read (`knowledge`), nor which real samples a shard takes (`mix`).

Only `add` changes it, in stream order, so every curator that has read as far has the same corpus.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from datasketch import MinHash

from jupiter.chunks import chunk
from jupiter.curator.candidate import digest_of_text
from jupiter.curator.real import real_samples
from jupiter.overlap import wording
from jupiter.overlap.forbidden import ForbiddenTexts, training_text
from jupiter.overlap.signatures import NearDuplicateIndex, own_size, sketch
from jupiter.records import Chunk, Document, Sample, Split

__all__ = ["Corpus", "RealSample"]


@dataclass(frozen=True)
class RealSample:
    """A real sample that may enter shards."""

    sample: Sample
    tokens: int
    words: int
    signature: MinHash
    contaminated_by: frozenset[str] = frozenset()
    """Items of the benchmark that it overlaps with; none unless decontamination is switched off."""


class Corpus:
    """See the module. `count_tokens` gives the tokens of many texts at once."""

    def __init__(
        self,
        *,
        chunk_chars_max: int,
        near_duplicate_threshold: float,
        forbidden: ForbiddenTexts,
        count_tokens: Callable[[Sequence[str]], Sequence[int]],
        forgotten: Collection[str] = (),
        decontaminate: bool = True,
    ) -> None:
        self.sequence = 0
        """The stream sequence of the last document read."""
        self.real: dict[str, RealSample] = {}
        """By sample id, in stream order."""
        self.dropped: Counter[str] = Counter()
        """Real samples that may not be trained on, by reason."""
        self.index = NearDuplicateIndex(threshold=near_duplicate_threshold)
        self.vocabulary: Counter[str] = Counter()
        """Content word -> in how many training passages it stands."""
        self._chunk_chars_max = chunk_chars_max
        self._forbidden = forbidden
        self._count_tokens = count_tokens
        self._forgotten = frozenset(forgotten)
        self._decontaminate = decontaminate
        self._splits: dict[str, Split] = {}
        self._documents: dict[str, tuple[str | None, str, tuple[Chunk, ...]]] = {}
        self._digests: set[str] = set()
        self._answers: dict[str, str] = {}

    def __len__(self) -> int:
        """How many documents are known, of either split."""
        return len(self._splits)

    def split_of(self, document_id: str) -> Split | None:
        """Return the document's split, None when no such document was accepted."""
        return self._splits.get(document_id)

    def is_forgotten(self, document_id: str) -> bool:
        """Return whether the document was recalled: nothing is made of it any more."""
        return document_id in self._forgotten

    def passage(self, document_id: str, index: int) -> Chunk | None:
        """Return a passage of a training document, None when there is none."""
        _, _, chunks = self._documents.get(document_id, (None, "", ()))
        return chunks[index] if 0 <= index < len(chunks) else None

    def title_and_group(self, document_id: str) -> tuple[str | None, str]:
        title, group, _ = self._documents.get(document_id, (None, "", ()))
        return title, group

    def has_text(self, digest: str) -> bool:
        """Whether a real sample has this text (`candidate.digest_of_text`)."""
        return digest in self._digests

    def answer_to(self, question: str) -> str | None:
        """Return the first real response to an instruction (`candidate.digest_of_text` of it)."""
        return self._answers.get(question)

    def add_held_out(self, document_id: str) -> None:
        """Note a document that belongs to the benchmark: its text is not even read."""
        self._splits[document_id] = "held_out"

    def add_training(self, documents: Sequence[Document]) -> None:
        """Add training documents in stream order; one that is known already or was recalled changes nothing.

        Everything that may fail comes first: an error leaves the corpus as it was, to be tried again.
        """
        known = self._forgotten | self._splits.keys()
        new = {document.document_id: document for document in documents if document.document_id not in known}
        chunked = {key: chunk(document, self._chunk_chars_max) for key, document in new.items()}
        candidates = [sample for key, document in new.items() for sample in real_samples(document, chunked[key])]
        made = self._made(candidates)
        for key, document in new.items():
            self._splits[key] = "training"
            self._documents[key] = (document.title, document.group, chunked[key])
            for passage in chunked[key]:
                self.vocabulary.update(set(wording.content_words(passage.text)))
        for real, sketches in made:
            self._add(real, sketches)

    def _made(self, samples: Sequence[Sample]) -> list[tuple[RealSample, Sequence[Mapping[int, MinHash]]]]:
        """Sketch and count samples in bulk; with each come the sketches of its text and of its response."""
        texts = [training_text(sample) for sample in samples]
        word_lists = [wording.words(text) for text in texts]
        whole, responses = sketch(word_lists), sketch([wording.words(sample.response) for sample in samples])
        counts = self._count_tokens(texts)
        return [
            (
                RealSample(sample=sample, tokens=tokens, words=len(words), signature=signatures[own_size(len(words))]),
                [signatures, response],
            )
            for sample, tokens, words, signatures, response in zip(
                samples, counts, word_lists, whole, responses, strict=True
            )
        ]

    def _add(self, real: RealSample, sketches: Sequence[Mapping[int, MinHash]]) -> None:
        """Take in a sample unless it may not be trained on; the first of two with equal text stays."""
        sample, text = real.sample, training_text(real.sample)
        digest = digest_of_text(text)
        reason = "exact_duplicate_real" if digest in self._digests else None
        overlap = self._forbidden.overlap(wording.words(text), sketches)
        if overlap is not None and not self._decontaminate:
            names = self._forbidden.overlapped(wording.words(text), sketches)
            real, overlap = replace(real, contaminated_by=names), None
        reason = reason or overlap
        if reason is not None:
            self.dropped[reason] += 1
            return
        self._digests.add(digest)
        self._answers.setdefault(digest_of_text(sample.instruction or ""), sample.response)
        self.index.add(sample.sample_id, real.signature)
        self.real[sample.sample_id] = real
