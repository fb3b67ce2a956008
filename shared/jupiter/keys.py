"""Where every object lies in the bucket, and on which subject every event travels.

Owns: the key and subject grammar (DESIGN §1 and §4). Does not know: what is inside.
"""

from __future__ import annotations

__all__ = [
    "base_model_prefix",
    "batch_prefix",
    "benchmark_pointer_key",
    "benchmark_prefix",
    "checkpoint_prefix",
    "count_key",
    "document_key",
    "evaluation_prefix",
    "generator_prefix",
    "ledger_key",
    "ledger_prefix",
    "manifest_key",
    "omission_name",
    "omissions_prefix",
    "sealed_prefix",
    "shadow_batch_prefix",
    "shadow_judgement_prefix",
    "shard_prefix",
    "subject",
    "verdict_key",
]


def document_key(domain: str, document_id: str) -> str:
    return f"documents/{domain}/{document_id}"


def base_model_prefix(domain: str, digest: str) -> str:
    """`digest` is taken over the digests of the model's files."""
    return f"base_models/{domain}/{digest}"


def batch_prefix(domain: str, request_id: str) -> str:
    return f"batches/{domain}/{request_id}"


def shard_prefix(domain: str, shard_id: str) -> str:
    return f"shards/{domain}/{shard_id}"


def checkpoint_prefix(domain: str, run: str, step: int) -> str:
    return f"checkpoints/{domain}/{run}/{step:09d}"


def omissions_prefix(domain: str, run: str) -> str:
    """What a run leaves out from which shard on, beside its checkpoints."""
    return f"checkpoints/{domain}/{run}/omissions/"


def omission_name(shard_sequence: int) -> str:
    return f"{shard_sequence:012d}.json"


def benchmark_prefix(domain: str, digest: str) -> str:
    return f"benchmarks/{domain}/{digest}"


def benchmark_pointer_key(domain: str, generation: int) -> str:
    """Return the key created once per generation: whoever creates it decides which benchmark that is."""
    return f"benchmarks/{domain}/frozen" if generation == 1 else f"benchmarks/{domain}/frozen-{generation}"


def count_key(domain: str, digest: str, shard_id: str) -> str:
    """What a shard holds of a benchmark that it was not made under."""
    return f"{benchmark_prefix(domain, digest)}/counts/{shard_id}.json"


def evaluation_prefix(domain: str, evaluation_id: str) -> str:
    return f"evaluations/{domain}/{evaluation_id}"


def sealed_prefix(domain: str, evaluation_id: str) -> str:
    """What was found on the sealed half of the benchmark, once it was opened for this evaluation."""
    return f"{evaluation_prefix(domain, evaluation_id)}/sealed"


def shadow_batch_prefix(domain: str, evaluation_id: str) -> str:
    """What a candidate generated for comparison: beside its evaluation, for it never becomes training data."""
    return f"{evaluation_prefix(domain, evaluation_id)}/shadow/batch"


def shadow_judgement_prefix(domain: str, evaluation_id: str) -> str:
    return f"{evaluation_prefix(domain, evaluation_id)}/shadow/judgement"


def verdict_key(domain: str, evaluation_id: str) -> str:
    return f"evaluations/{domain}/{evaluation_id}/verdict.json"


def generator_prefix(domain: str, version: int) -> str:
    return f"generators/{domain}/v{version}"


def ledger_prefix(domain: str) -> str:
    return f"ledger/{domain}/"


def ledger_key(domain: str, sequence: int) -> str:
    return f"{ledger_prefix(domain)}{sequence:08d}.json"


def manifest_key(prefix: str) -> str:
    return f"{prefix}/manifest.json"


def subject(channel: str, domain: str) -> str:
    """Return `<channel>.<domain>`, e.g. `batches.python_stdlib`; `*` as the domain subscribes to all."""
    return f"{channel}.{domain}"
