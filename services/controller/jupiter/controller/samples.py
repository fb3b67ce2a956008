"""The newest samples, accepted and rejected, as the curator stored them.

Owns: reading them out of the shards' files, newest shard first. Does not know: why a sample was rejected beyond what
the curator wrote. Synchronous; call through `asyncio.to_thread`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from jupiter import manifests
from jupiter.blobs import Blobs
from jupiter.controller.views import SampleView
from jupiter.events import ShardCurated
from jupiter.sample_files import read_json_lines, read_parquet

__all__ = ["newest_samples"]

# A shard holds hundreds of samples; looking further back than this for more of one sort is not worth the reading.
SHARDS_MAX = 20


def newest_samples(
    blobs: Blobs, shards: Sequence[ShardCurated], *, accepted: bool | None, origin: str | None, limit: int
) -> list[SampleView]:
    """Return up to `limit` samples, and of each sort up to `limit` when `accepted` is None. `shards`: oldest first."""
    wanted = (True, False) if accepted is None else (accepted,)
    found: dict[bool, list[SampleView]] = {sort: [] for sort in wanted}
    for shard in list(reversed(shards))[:SHARDS_MAX]:
        if all(len(views) >= limit for views in found.values()):
            break
        manifest = manifests.read(blobs, shard.manifest_key, sha256=shard.manifest_sha256).manifest
        for sort in wanted:
            if len(found[sort]) < limit:
                read, name = (_accepted, "samples.parquet") if sort else (_rejected, "rejected.jsonl.zst")
                views = read(blobs.get(manifest.file(name).key), shard)
                found[sort] += [view for view in views if origin in (None, view.sample.get("origin", "synthetic"))]
    return [view for sort in wanted for view in found[sort][:limit]]


def _accepted(data: bytes, shard: ShardCurated) -> Iterator[SampleView]:
    for sample in read_parquet(data):
        yield SampleView(accepted=True, shard_id=shard.shard_id, sample=sample.model_dump(mode="json"))


def _rejected(data: bytes, shard: ShardCurated) -> Iterator[SampleView]:
    """A rejected sample may be malformed, that being the reason, so it is shown as it came."""
    for line in read_json_lines(data):
        record = json.loads(line)
        yield SampleView(
            accepted=False,
            shard_id=shard.shard_id,
            reason=record.get("reason"),
            filter=record.get("filter"),
            sample=record.get("sample", {}),
        )
