"""A batch through all filters: what is kept, and why each of the others is not.

Owns: the walk and the counting. Does not know: any filter by name, nor where samples come from or go.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jupiter.curator.candidate import Candidate
from jupiter.curator.corpus import Corpus
from jupiter.curator.diversity import repeats
from jupiter.curator.filters import Context, Filter, filter_types
from jupiter.overlap import wording
from jupiter.overlap.forbidden import training_text
from jupiter.overlap.signatures import sketch
from jupiter.records import Sample

__all__ = ["Accepted", "Judged", "Rejection", "candidates_of", "judge"]


@dataclass(frozen=True)
class Accepted:
    """A sample that every filter kept; `score` is the last one given: quality judges after grounding."""

    candidate: Candidate
    score: float


@dataclass(frozen=True)
class Rejection:
    """A sample that is not in the shard: `filter` and `reason` say why; kept in the shard's rejected samples."""

    sample: Sample | Mapping[str, Any]
    filter: str
    reason: str
    score: float | None = None

    def record(self) -> Mapping[str, Any]:
        """Return the line that stands in `rejected.jsonl.zst`."""
        sample = self.sample.model_dump(mode="json") if isinstance(self.sample, Sample) else dict(self.sample)
        return {"reason": self.reason, "filter": self.filter, "score": self.score, "sample": sample}


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The outcome for one batch."""

    accepted: tuple[Accepted, ...]
    rejected: tuple[Rejection, ...]
    made: int = 0
    """Samples that were judged."""
    repeats: float | None = None
    """The share of them that nearly repeat an earlier one of the batch; None of no samples."""

    @property
    def dropped(self) -> Mapping[str, int]:
        """Rejections by reason."""
        return dict(sorted(Counter(rejection.reason for rejection in self.rejected).items()))


def candidates_of(samples: Sequence[Sample], corpus: Corpus) -> list[Candidate]:
    """Put each sample beside its passage, and sketch all of them at once."""
    whole = sketch([wording.words(training_text(sample)) for sample in samples])
    responses = sketch([wording.words(sample.response) for sample in samples])
    made: list[Candidate] = []
    for sample, signatures, response_signatures in zip(samples, whole, responses, strict=True):
        passage = corpus.passage(sample.document_id, sample.chunk_index)
        title, group = corpus.title_and_group(sample.document_id)
        made.append(
            Candidate(
                sample=sample,
                source=None if passage is None else passage.text,
                title=title,
                group=group,
                signatures=signatures,
                response_signatures=response_signatures,
            )
        )
    return made


def judge(context: Context, *, progress: Callable[[int], None] = lambda _: None) -> Judged:
    """Judge the batch sample by sample, in its order; the filters remember only what all of them kept.

    `progress` is called with the number of samples judged so far.
    """
    filters = [filter_type(context) for filter_type in filter_types()]
    accepted: list[Accepted] = []
    rejected: list[Rejection] = []
    for done, candidate in enumerate(context.batch, start=1):
        outcome = _judge_one(filters, candidate)
        if isinstance(outcome, Rejection):
            rejected.append(outcome)
        else:
            accepted.append(outcome)
            for filter_ in filters:
                filter_.remember(candidate)
        progress(done)
    return Judged(
        accepted=tuple(accepted),
        rejected=tuple(rejected),
        made=len(context.batch),
        repeats=repeats(context.batch, threshold=context.settings.near_duplicate_threshold),
    )


def _judge_one(filters: Sequence[Filter], candidate: Candidate) -> Accepted | Rejection:
    score = 1.0
    for filter_ in filters:
        verdict = filter_.judge(candidate)
        if not verdict.kept:
            return Rejection(candidate.sample, filter_.name, verdict.reason, verdict.score)
        if verdict.score is not None:
            score = verdict.score
    return Accepted(candidate, score)
