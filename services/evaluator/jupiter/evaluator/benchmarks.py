"""The frozen benchmark in the store: found, verified, or frozen once for all evaluators.

Owns: its files, the pointer `benchmarks/<domain>/frozen`, and whether a benchmark is fit to be frozen.
Does not know: how items are made (`benchmark`) or when to freeze (`freezing`).
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from dataclasses import dataclass

from pydantic import ValidationError

from jupiter import keys, manifests
from jupiter.blobs import Blobs
from jupiter.errors import IntegrityError, NotFound
from jupiter.evaluator.benchmark import Benchmark
from jupiter.evaluator.items import Item
from jupiter.events import BenchmarkFrozen
from jupiter.records import canonical_json
from jupiter.reports import DIMENSIONS
from jupiter.sample_files import write_json_lines

__all__ = ["FrozenBenchmark", "find_frozen", "freeze", "shortfall"]

log = logging.getLogger(__name__)

WHOLE_FILE = "benchmark.json"
ITEMS_FILE = "items.jsonl.zst"
CONFIRMATION_SHARE_MIN = 0.4
"""Of `benchmark_samples`. The gate concludes nothing from fewer confirmation items, nor from fewer clusters."""
CLUSTERS_MIN = 4


@dataclass(frozen=True, kw_only=True)
class FrozenBenchmark:
    """The benchmark that every evaluation of the domain uses, and where it stands."""

    benchmark: Benchmark
    digest: str
    manifest_key: str
    manifest_sha256: str

    @property
    def event(self) -> BenchmarkFrozen:
        return BenchmarkFrozen(
            domain=self.benchmark.domain,
            digest=self.digest,
            manifest_key=self.manifest_key,
            manifest_sha256=self.manifest_sha256,
            items=len(self.benchmark.items),
            clusters=len({item.cluster for item in self.benchmark.items}),
        )


def pointer_key(domain: str) -> str:
    """Return the key created once per domain: whoever creates it decides which benchmark is the frozen one."""
    return keys.benchmark_prefix(domain, "frozen")


def find_frozen(blobs: Blobs, domain: str) -> FrozenBenchmark | None:
    """Return the frozen benchmark, verified from pointer to item; None while there is none. Raises IntegrityError."""
    try:
        pointer = json.loads(blobs.get(pointer_key(domain)))
    except NotFound:
        return None
    try:
        committed = manifests.read(blobs, pointer["manifest_key"], sha256=pointer["manifest_sha256"])
        data = manifests.download_bytes(blobs, committed.manifest.file(WHOLE_FILE))
        benchmark = Benchmark.model_validate_json(data)
    except (NotFound, KeyError, ValidationError) as error:
        raise IntegrityError(f"the frozen benchmark of {domain} cannot be read: {error}") from error
    if benchmark.digest != pointer["digest"]:
        raise IntegrityError(
            f"the frozen benchmark of {domain} has digest {benchmark.digest}, it was frozen as {pointer['digest']}"
        )
    return FrozenBenchmark(
        benchmark=benchmark,
        digest=benchmark.digest,
        manifest_key=committed.key,
        manifest_sha256=committed.sha256,
    )


def freeze(blobs: Blobs, benchmark: Benchmark) -> FrozenBenchmark:
    """Store the benchmark and point to it, unless another one was frozen first; return the one that is frozen."""
    prefix = keys.benchmark_prefix(benchmark.domain, benchmark.digest)
    whole = manifests.upload_bytes(blobs, prefix=prefix, name=WHOLE_FILE, data=benchmark.model_dump_json().encode())
    lines = write_json_lines(item.model_dump(mode="json") for item in _texts_not_to_train_on(benchmark))
    committed = manifests.commit(
        blobs,
        prefix=prefix,
        kind="benchmark",
        domain=benchmark.domain,
        work_id=benchmark.digest,
        files=(whole, manifests.upload_bytes(blobs, prefix=prefix, name=ITEMS_FILE, data=lines)),
        details={"items": len(benchmark.items), "counts": benchmark.counts(), "seed": benchmark.seed},
    )
    pointer = {"digest": benchmark.digest, "manifest_key": committed.key, "manifest_sha256": committed.sha256}
    if not blobs.create(pointer_key(benchmark.domain), canonical_json(pointer)):
        log.info("another evaluator froze a benchmark first: it is used")
    frozen = find_frozen(blobs, benchmark.domain)
    if frozen is None:
        raise IntegrityError(f"{pointer_key(benchmark.domain)} vanished right after it was created")
    return frozen


def _texts_not_to_train_on(benchmark: Benchmark) -> list[Item]:
    """Return the items and the worked examples shown before them."""
    return [*benchmark.items, *(example for examples in benchmark.examples.values() for example in examples)]


def shortfall(benchmark: Benchmark, *, samples: int) -> str | None:
    """Return what keeps the benchmark from deciding anything, or None when it is fit to be frozen."""
    if len(benchmark.items) < samples:
        return f"{len(benchmark.items)} of {samples} items"
    confirming = [item for item in benchmark.items if item.half == "confirmation"]
    if len(confirming) < samples * CONFIRMATION_SHARE_MIN:
        return f"{len(confirming)} items in the confirmation half, {samples * CONFIRMATION_SHARE_MIN:.0f} are needed"
    clusters = len({item.cluster for item in confirming})
    if clusters < CLUSTERS_MIN:
        return f"the confirmation half comes from {clusters} sources, {CLUSTERS_MIN} are needed"
    counted = Counter(item.dimension for item in confirming)
    missing = [dimension for dimension in DIMENSIONS if not counted[dimension]]
    return f"no confirmation item measures {' or '.join(missing)}" if missing else None
