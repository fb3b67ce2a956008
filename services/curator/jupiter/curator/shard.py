"""One batch made into one shard: mixing, the files, the manifest's details.

Owns: what a shard consists of. Does not know: how a batch was judged (`pipeline`) or read (`handlers`).
Pure but for `commit_shard`: the same judgement, corpus and history give the same files, byte for byte.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datasketch import MinHash

from jupiter import keys, manifests
from jupiter.blobs import Blobs
from jupiter.curator.corpus import Corpus, RealSample
from jupiter.curator.diversity import measure
from jupiter.curator.history import History
from jupiter.curator.mix import Mixed, Portion, mix
from jupiter.curator.pipeline import Accepted, Judged, Rejection
from jupiter.curator.tokens import TokenCounter
from jupiter.overlap.forbidden import ForbiddenTexts, training_text
from jupiter.overlap.signatures import pack
from jupiter.records import Sample
from jupiter.sample_files import write_json_lines, write_parquet

__all__ = [
    "NOTHING_FITS_REASON",
    "REJECTED_FILE",
    "SAMPLES_FILE",
    "SIGNATURES_FILE",
    "Shard",
    "build_shard",
    "commit_shard",
]

SAMPLES_FILE, REJECTED_FILE, SIGNATURES_FILE = "samples.parquet", "rejected.jsonl.zst", "signatures.npz"
TRIMMED_REASON = "trimmed_for_real_ratio"
NOTHING_FITS_REASON = "no_real_sample_fits"
"""All accepted samples were left out: no choice of real samples has the right share beside any of them."""
# Says nothing about what was generated: a cap was full, real data was short, a document is none of ours.
NOT_JUDGED = frozenset(
    {
        *("document_cap", "topic_cap", "template_cap", TRIMMED_REASON, NOTHING_FITS_REASON),
        *("unknown_document", "held_out_document", "unknown_chunk"),
    }
)
DUPLICATES = ("exact_duplicate", "near_duplicate_earlier", "near_duplicate_batch", "not_novel")
"""Reasons that say a sample repeats another generated one, of this batch or of an earlier shard."""


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A shard before it is committed. `hold`: too much of the real data is used up, so there is none yet."""

    hold: bool
    samples: tuple[Sample, ...] = ()
    signatures: Mapping[str, MinHash]
    rejected: tuple[Rejection, ...]
    details: Mapping[str, Any]


def build_shard(
    judged: Judged,
    *,
    batch_id: str,
    corpus: Corpus,
    history: History,
    tokens: TokenCounter,
    real_ratio: float,
    real_repeats_max: int,
    forbidden: ForbiddenTexts,
) -> Shard:
    """Mix the accepted samples with real ones and lay out the shard."""
    counts = tokens.count([training_text(accepted.candidate.sample) for accepted in judged.accepted])
    portions = [Portion(a.candidate.sample.sample_id, n) for a, n in zip(judged.accepted, counts, strict=True)]
    best_first = [portions[place] for place in _best_first(judged.accepted)]
    mixed = mix(
        best_first,
        [Portion(sample_id, real.tokens) for sample_id, real in corpus.real.items()],
        uses=history.real_uses,
        target=real_ratio,
        repeats_max=real_repeats_max,
    )
    by_id = {accepted.candidate.sample.sample_id: accepted for accepted in judged.accepted}
    synthetic = [by_id[sample_id] for sample_id in mixed.synthetic]
    real = [corpus.real[sample_id] for sample_id in mixed.real]
    reason = NOTHING_FITS_REASON if mixed.outcome == "nothing_fits" else TRIMMED_REASON
    trimmed = (Rejection(by_id[i].candidate.sample, "mix", reason, by_id[i].score) for i in mixed.trimmed)
    rejected = (*judged.rejected, *trimmed)
    samples = [accepted.candidate.sample for accepted in synthetic] + [one.sample for one in real]
    return Shard(
        hold=mixed.outcome == "hold",
        samples=tuple(sorted(samples, key=lambda sample: _shuffled(batch_id, sample))),
        signatures={a.candidate.sample.sample_id: a.candidate.signature for a in synthetic}
        | {one.sample.sample_id: one.signature for one in real},
        rejected=rejected,
        details={
            "accepted": len(synthetic),
            "dropped": dict(sorted(Counter(rejection.reason for rejection in rejected).items())),
            "candidates": len(synthetic) + len(rejected),
            **_token_figures(mixed, {portion.sample_id: portion.tokens for portion in portions}, real),
            "documents": _counted(accepted.candidate.sample.document_id for accepted in synthetic),
            "templates": _counted(accepted.candidate.sample.template or "" for accepted in synthetic),
            **_real_figures(real, corpus, history),
            "contamination": _contamination(synthetic, real, forbidden),
            "tokenizer_sha256": tokens.sha256,
            "corpus_sequence": corpus.sequence,
            "history_sequence": history.sequence,
            "diversity_figures": {}
            if mixed.outcome == "hold"
            else _diversity(judged, synthetic, corpus, seed=batch_id),
        },
    )


def _best_first(accepted: Sequence[Accepted]) -> list[int]:
    """Order by quality, equal scores in batch order: what is trimmed is the bottom."""
    return sorted(range(len(accepted)), key=lambda place: (-accepted[place].score, place))


def _shuffled(batch_id: str, sample: Sample) -> bytes:
    """Real and synthetic lie mixed in the file, in an order that only the ids decide."""
    return hashlib.sha256(f"{batch_id}:{sample.sample_id}".encode()).digest()


def _token_figures(mixed: Mixed, tokens_of: Mapping[str, int], real: Sequence[RealSample]) -> dict[str, Any]:
    real_tokens = sum(one.tokens for one in real)
    tokens = real_tokens + sum(tokens_of[sample_id] for sample_id in mixed.synthetic)
    return {
        "tokens": tokens,
        "real_tokens": real_tokens,
        "real_ratio": round(real_tokens / tokens, 6) if tokens else 0.0,
    }


def _counted(names: Iterable[str]) -> dict[str, int]:
    """Return how many synthetic samples there are of each document, or template."""
    return dict(sorted(Counter(names).items()))


def _real_figures(real: Sequence[RealSample], corpus: Corpus, history: History) -> dict[str, Any]:
    """Say which real passages are in the shard, and how often real samples were used with this shard included."""
    passages: dict[str, set[int]] = {}
    for one in real:
        passages.setdefault(one.sample.document_id, set()).add(one.sample.chunk_index)
    uses = [history.real_uses[one.sample.sample_id] + 1 for one in real]
    return {
        "real_documents": {document_id: sorted(indexes) for document_id, indexes in sorted(passages.items())},
        "repeats": {
            "unique": len(real),
            "first_time": uses.count(1),
            "max": max(uses, default=0),
            "by_uses": {str(times): count for times, count in sorted(Counter(uses).items())},
        },
        "real_available": len(corpus.real),
        "real_dropped": dict(sorted(corpus.dropped.items())),
    }


def _contamination(
    synthetic: Sequence[Accepted], real: Sequence[RealSample], forbidden: ForbiddenTexts
) -> dict[str, Any]:
    """Count the samples of the shard that overlap with the benchmark, whatever let them in: 0 is a finding too."""
    made = [
        forbidden.overlapped(candidate.words, [candidate.signatures, candidate.response_signatures])
        for candidate in (accepted.candidate for accepted in synthetic)
    ]
    items = frozenset[str]().union(*made, *(one.contaminated_by for one in real))
    return {
        "benchmark": forbidden.digest,
        "synthetic": sum(map(bool, made)),
        "real": sum(bool(one.contaminated_by) for one in real),
        "items": {name: forbidden.items[name].half for name in sorted(items)},
    }


def _diversity(judged: Judged, synthetic: Sequence[Accepted], corpus: Corpus, *, seed: str) -> dict[str, float]:
    """Return the figures that the breaker judges: of the texts in the shard, and of what the filters said.

    Repetition has figures of its own and does not count as refusal: over a corpus that does not grow, every generator
    comes to say what earlier shards hold, and that is no fault of the one that does so last.
    """
    figures = measure([accepted.candidate for accepted in synthetic], corpus, seed=seed).flat()
    refused = [rejection.reason for rejection in judged.rejected if rejection.reason not in NOT_JUDGED]
    repeating = sum(reason in DUPLICATES for reason in refused)
    counted = len(judged.accepted) + len(refused)
    eligible = counted - repeating
    figures |= {"made": float(judged.made), "judged": float(counted), "eligible": float(eligible)}
    if counted:
        figures["duplicates"] = round(repeating / counted, 4)
    if eligible:
        figures["acceptance"] = round(len(judged.accepted) / eligible, 4)
    if judged.repeats is not None:
        figures["repeats"] = judged.repeats
    return figures


def commit_shard(
    blobs: Blobs, shard: Shard, *, domain: str, batch_id: str, about_batch: Mapping[str, Any]
) -> manifests.Committed:
    """Store the files, then create the manifest; `about_batch` are details that name the batch."""
    prefix = keys.shard_prefix(domain, batch_id)
    files = {
        SAMPLES_FILE: write_parquet(shard.samples),
        REJECTED_FILE: write_json_lines(rejection.record() for rejection in shard.rejected),
        SIGNATURES_FILE: pack(shard.signatures),
    }
    return manifests.commit(
        blobs,
        prefix=prefix,
        kind="shard",
        domain=domain,
        work_id=batch_id,
        files=tuple(manifests.upload_bytes(blobs, prefix=prefix, name=name, data=data) for name, data in files.items()),
        details={**about_batch, **shard.details},
    )
