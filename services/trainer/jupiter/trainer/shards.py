"""Shards as the trainer sees them: a log of samples, each fetched, checked and turned into tokens.

Owns: reading `shards.<domain>` after an offset, and the control's permutation on the way in.
Does not know: rounds, models, checkpoints.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from jupiter import keys, manifests
from jupiter.blobs import Blobs
from jupiter.bus import Bus
from jupiter.config.sections import TrainerSection
from jupiter.errors import IntegrityError, NotFound
from jupiter.events import ShardCurated
from jupiter.records import Manifest
from jupiter.sample_files import read_parquet
from jupiter.trainer.control import shuffle_responses
from jupiter.trainer.formats import Encoder
from jupiter.trainer.outages import outlast
from jupiter.trainer.packing import Encoded
from jupiter.trainer.rounds import ConsumedShard
from jupiter.withdrawals import Withdrawn

__all__ = ["LoadedShard", "ShardReader"]

log = logging.getLogger(__name__)

SAMPLES_FILE = "samples.parquet"


@dataclass(frozen=True, kw_only=True)
class LoadedShard:
    """One shard, ready to train on."""

    shard: ConsumedShard
    samples: tuple[Encoded, ...]
    counts: Mapping[str, int]
    """What happened to its samples on the way: `samples`, `truncated`, `forgotten`, `shuffled`, …"""
    withdrawn: bool = False
    """Its batch was taken back: it has no samples."""


class ShardReader:
    """Reads shards one after the other; its methods may be called from any thread."""

    def __init__(self, *, bus: Bus, blobs: Blobs, domain: str, encoder: Encoder, settings: TrainerSection) -> None:
        self._bus, self._blobs, self._domain = bus, blobs, domain
        self._encoder, self._settings = encoder, settings

    async def follow(self, *, after: int, without: Callable[[], Withdrawn]) -> AsyncIterator[LoadedShard]:
        """Yield every shard whose stream sequence is greater than `after`, in order, for ever.

        `without` is asked at each: what to leave out, as far as it is known by then.
        """
        async for entry in self._bus.read(keys.subject(ShardCurated.channel, self._domain), after=after):
            if isinstance(entry.event, ShardCurated):
                yield await self.load(
                    ConsumedShard(
                        sequence=entry.sequence,
                        shard_id=entry.event.shard_id,
                        manifest_key=entry.event.manifest_key,
                        manifest_sha256=entry.event.manifest_sha256,
                    ),
                    without=without(),
                )

    async def load(self, shard: ConsumedShard, *, without: Withdrawn) -> LoadedShard:
        """Return the shard's samples as tokens, waiting for a store that does not answer.

        A shard that is damaged or gone has no samples and counts as `unreadable`: the cycle goes on without it.
        """
        try:
            return await outlast(
                lambda: asyncio.to_thread(self._load, shard, without), waiting=f"for shard {shard.shard_id}"
            )
        except (NotFound, IntegrityError) as error:
            log.error("shard %s cannot be read and is left out: %s", shard.shard_id, error)  # noqa: TRY400
            return LoadedShard(shard=shard, samples=(), counts={"unreadable": 1})

    def _load(self, shard: ConsumedShard, without: Withdrawn) -> LoadedShard:
        committed = manifests.read(self._blobs, shard.manifest_key, sha256=shard.manifest_sha256)
        if _is_withdrawn(committed.manifest, without):
            return LoadedShard(shard=shard, samples=(), counts={"shard_withdrawn": 1}, withdrawn=True)
        with tempfile.TemporaryDirectory(prefix="jupiter-shard-") as directory:
            manifests.fetch(self._blobs, committed.manifest, Path(directory), names=(SAMPLES_FILE,))
            samples = tuple(read_parquet(Path(directory, SAMPLES_FILE).read_bytes()))
        counts = Counter(samples=len(samples))
        # Before anything else: the control would move a forgotten answer under another question.
        samples = tuple(sample for sample in samples if not without.has_document(sample.document_id))
        if len(samples) < counts["samples"]:
            counts["forgotten"] = counts["samples"] - len(samples)
        if self._settings.control == "shuffled":
            shuffled = shuffle_responses(samples, seed=self._settings.seed, shard_id=shard.shard_id)
            samples = shuffled.samples
            counts.update(shuffled=shuffled.moved, shuffled_left_out=shuffled.left_out)
        encoded = self._encoder.encode(samples)
        return LoadedShard(shard=shard, samples=encoded.samples, counts=counts + encoded.counts)


def _is_withdrawn(manifest: Manifest, without: Withdrawn) -> bool:
    """Whether the batch that the shard was made of is out."""
    version, sequence = manifest.details.get("generator_version"), manifest.details.get("batch_sequence")
    return version is not None and sequence is not None and without.has_batch(version=version, sequence=sequence)
