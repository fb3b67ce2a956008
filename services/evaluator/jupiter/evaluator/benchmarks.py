"""The frozen benchmarks in the store: found, verified, or frozen once for all evaluators.

Owns: their files, and whether a benchmark is fit to be frozen. Does not know: how items are made (`benchmark`), when to
freeze (`freezing`, `renewing`), which generations there are (`jupiter.generations`).
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from jupiter import generations, keys, manifests
from jupiter.blobs import Blobs
from jupiter.errors import IntegrityError, NotFound
from jupiter.evaluator.benchmark import HALVES, Benchmark
from jupiter.evaluator.general import forbidden_texts
from jupiter.evaluator.items import Half
from jupiter.events import BenchmarkFrozen
from jupiter.generations import Pointer
from jupiter.overlap.forbidden import ForbiddenTexts, forbidden_items
from jupiter.reports import CLUSTERS_MIN, DIMENSIONS, HALF_SHARES_MIN
from jupiter.sample_files import read_json_lines, write_json_lines

__all__ = ["FrozenBenchmark", "find_all", "find_frozen", "forbidden_of", "freeze", "shortfall"]

log = logging.getLogger(__name__)

WHOLE_FILE = "benchmark.json"
ITEMS_FILE = "items.jsonl.zst"
MORE_DOCUMENTS = "publish more documents (split: held_out), or lower self_improvement.benchmark_samples"
OTHER_SOURCES = "publish held-out documents of other sources (group): each source is in one half only"


@dataclass(frozen=True, kw_only=True)
class FrozenBenchmark:
    """One benchmark of the domain, and where it stands. Evaluations use the newest generation."""

    benchmark: Benchmark
    digest: str
    manifest_key: str
    manifest_sha256: str
    generation: int = 1

    @property
    def event(self) -> BenchmarkFrozen:
        return BenchmarkFrozen(
            domain=self.benchmark.domain,
            digest=self.digest,
            manifest_key=self.manifest_key,
            manifest_sha256=self.manifest_sha256,
            items=len(self.benchmark.items),
            clusters=len({item.cluster for item in self.benchmark.items}),
            generation=self.generation,
        )


def find_all(blobs: Blobs, domain: str) -> tuple[FrozenBenchmark, ...]:
    """Return the benchmarks of all generations, the first one first. Raises IntegrityError."""
    found = generations.pointers(blobs, domain)
    return tuple(_read(blobs, domain, pointer, generation) for generation, pointer in enumerate(found, start=1))


def find_frozen(blobs: Blobs, domain: str, *, digest: str | None = None) -> FrozenBenchmark | None:
    """Return the newest benchmark, or the one with the digest, verified from pointer to item; None where there is none.

    Raises IntegrityError.
    """
    found = list(enumerate(generations.pointers(blobs, domain), start=1))
    chosen = [one for one in found if digest in (None, one[1].digest)]
    return _read(blobs, domain, chosen[-1][1], chosen[-1][0]) if chosen else None


def _read(blobs: Blobs, domain: str, pointer: Pointer, generation: int) -> FrozenBenchmark:
    try:
        committed = manifests.read(blobs, pointer.manifest_key, sha256=pointer.manifest_sha256)
        data = manifests.download_bytes(blobs, committed.manifest.file(WHOLE_FILE))
        benchmark = Benchmark.model_validate_json(data)
    except (NotFound, KeyError, ValidationError) as error:
        raise IntegrityError(f"the frozen benchmark of {domain} cannot be read: {error}") from error
    if benchmark.digest != pointer.digest:
        raise IntegrityError(
            f"the frozen benchmark of {domain} has digest {benchmark.digest}, it was frozen as {pointer.digest}"
        )
    return FrozenBenchmark(
        benchmark=benchmark,
        digest=benchmark.digest,
        manifest_key=committed.key,
        manifest_sha256=committed.sha256,
        generation=generation,
    )


def freeze(blobs: Blobs, benchmark: Benchmark, *, generation: int = 1) -> FrozenBenchmark:
    """Store the benchmark and point to it, unless another one was that generation first; return the one that is."""
    domain, prefix = benchmark.domain, keys.benchmark_prefix(benchmark.domain, benchmark.digest)
    whole = manifests.upload_bytes(blobs, prefix=prefix, name=WHOLE_FILE, data=benchmark.model_dump_json().encode())
    lines = write_json_lines(_texts_not_to_train_on(benchmark))
    committed = manifests.commit(
        blobs,
        prefix=prefix,
        kind="benchmark",
        domain=domain,
        work_id=benchmark.digest,
        files=(whole, manifests.upload_bytes(blobs, prefix=prefix, name=ITEMS_FILE, data=lines)),
        details={"items": len(benchmark.items), "counts": benchmark.counts(), "seed": benchmark.seed},
    )
    pointer = Pointer(digest=benchmark.digest, manifest_key=committed.key, manifest_sha256=committed.sha256)
    if not generations.point(blobs, domain, generation, pointer):
        log.info("another evaluator froze a benchmark first: it is used")
    stand = generations.pointers(blobs, domain)
    if len(stand) < generation:
        raise IntegrityError(f"{keys.benchmark_pointer_key(domain, generation)} vanished right after it was created")
    return _read(blobs, domain, stand[generation - 1], generation)


def forbidden_of(benchmark: Benchmark, *, threshold: float) -> ForbiddenTexts:
    """Return what the curator reads from the benchmark's file, of one that need not be stored yet."""
    lines = read_json_lines(write_json_lines(_texts_not_to_train_on(benchmark)))
    return ForbiddenTexts(forbidden_items(lines), threshold=threshold, digest=benchmark.digest)


def _texts_not_to_train_on(benchmark: Benchmark) -> Iterator[Mapping[str, Any]]:
    """Yield what the curator keeps out of training data: the items, the worked examples shown before them, and the
    general suite, of which only the texts count here."""
    for item in (*benchmark.items, *(example for examples in benchmark.examples.values() for example in examples)):
        yield item.model_dump(mode="json")
    for texts in forbidden_texts():
        yield {"texts": list(texts)}


def shortfall(benchmark: Benchmark, *, samples: int) -> str | None:
    """Return what keeps the benchmark from deciding anything and what would help, or None when it is fit to be frozen.

    Either half is judged by itself: the development half says which candidate is worth opening the sealed half for.
    """
    if len(benchmark.items) < samples:
        return f"{len(benchmark.items)} of {samples} items; {MORE_DOCUMENTS}"
    return next(filter(None, (_shortfall_of(benchmark, half, samples=samples) for half in HALVES)), None)


def _shortfall_of(benchmark: Benchmark, half: Half, *, samples: int) -> str | None:
    items, least = benchmark.half(half), math.ceil(samples * HALF_SHARES_MIN[half])
    if len(items) < least:
        return f"{len(items)} items in the {half} half, {least} are needed; {MORE_DOCUMENTS}"
    clusters = len({item.cluster for item in items})
    if clusters < CLUSTERS_MIN:
        return f"a {half} half from {clusters} sources, {CLUSTERS_MIN} are needed; {OTHER_SOURCES}"
    counted = Counter(item.dimension for item in items)
    missing = [dimension for dimension in DIMENSIONS if not counted[dimension]]
    return f"no {half} item that measures {' or '.join(missing)}; {OTHER_SOURCES}" if missing else None
