"""What stored shards hold of a benchmark that they were not made under.

Owns: reading shards and counting, keeping the counts, remembering which shards were counted.
Does not know: the overlap rule (`jupiter.overlap`), nor what follows from an overlap (the gate, `renewing`).

The curator counts each shard against the benchmark in use when it makes it. This is for the others: shards that are
older than their benchmark, and those from before there were counts. Synchronous; call through `asyncio.to_thread`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from jupiter import keys, manifests
from jupiter.blobs import Blobs
from jupiter.contamination import ShardCount, find_count, keep_count
from jupiter.errors import IntegrityError, NotFound
from jupiter.evaluator.benchmark import Benchmark
from jupiter.evaluator.benchmarks import forbidden_of
from jupiter.overlap.forbidden import ForbiddenTexts, count
from jupiter.sample_files import read_parquet

__all__ = ["Counting"]

log = logging.getLogger(__name__)

READERS = 8
"""Manifests read at a time: each is small, the time goes into waiting."""
SAMPLES_FILE = "samples.parquet"

Progress = Callable[[int, int], None]
"""Called with shards counted and shards in all, in the thread that counts."""


class Counting:
    """Counts shards of one domain; `threshold` is the similarity of a near-duplicate, the curator's own."""

    def __init__(self, blobs: Blobs, domain: str, *, threshold: float) -> None:
        self._blobs, self._domain, self._threshold = blobs, domain, threshold
        self._counted: set[tuple[str, str]] = set()
        """Benchmark digest and shard id."""

    def uncounted(self, shard_ids: Iterable[str], *, benchmark_digest: str) -> list[str]:
        """Return the shards that nobody has counted against the benchmark."""
        unknown = sorted({shard_id for shard_id in shard_ids if (benchmark_digest, shard_id) not in self._counted})
        with ThreadPoolExecutor(READERS) as pool:
            found = list(pool.map(lambda shard_id: self._is_counted(shard_id, benchmark_digest), unknown))
        self._counted |= {(benchmark_digest, one) for one, counted in zip(unknown, found, strict=True) if counted}
        return [one for one, counted in zip(unknown, found, strict=True) if not counted]

    def count(self, shard_ids: Sequence[str], benchmark: Benchmark, progress: Progress) -> None:
        """Count the shards and keep the counts. One that cannot be read stays uncounted, which the gate then says."""
        forbidden = forbidden_of(benchmark, threshold=self._threshold)
        for done, shard_id in enumerate(shard_ids):
            progress(done, len(shard_ids))
            counted = self._count(shard_id, forbidden)
            if counted is not None:
                keep_count(self._blobs, self._domain, shard_id, counted)

    def search(self, benchmark: Benchmark, progress: Progress) -> Mapping[str, ShardCount | None]:
        """Return what every stored shard holds of a benchmark (None: it cannot be read), and keep nothing.

        Ends when no shard has come meanwhile: what is frozen right after was looked for in all there are.
        """
        forbidden = forbidden_of(benchmark, threshold=self._threshold)
        found: dict[str, ShardCount | None] = {}
        while new := [shard_id for shard_id in self._stored() if shard_id not in found]:
            total = len(found) + len(new)
            for shard_id in new:
                progress(len(found), total)
                found[shard_id] = self._count(shard_id, forbidden)
        return found

    def _stored(self) -> list[str]:
        prefix, name = keys.shard_prefix(self._domain, ""), keys.manifest_key("")
        return [
            info.key.removeprefix(prefix).removesuffix(name)
            for info in self._blobs.list(prefix)
            if info.key.endswith(name)
        ]

    def _is_counted(self, shard_id: str, benchmark_digest: str) -> bool:
        try:
            return find_count(self._blobs, self._domain, shard_id, benchmark_digest=benchmark_digest) is not None
        except IntegrityError:
            return False

    def _count(self, shard_id: str, forbidden: ForbiddenTexts) -> ShardCount | None:
        try:
            manifest = manifests.read(
                self._blobs, keys.manifest_key(keys.shard_prefix(self._domain, shard_id))
            ).manifest
            samples = read_parquet(manifests.download_bytes(self._blobs, manifest.file(SAMPLES_FILE)))
        except (NotFound, IntegrityError, KeyError) as error:
            log.warning("shard %s cannot be counted against benchmark %s: %s", shard_id, forbidden.digest[:12], error)
            return None
        return count(samples, forbidden)
