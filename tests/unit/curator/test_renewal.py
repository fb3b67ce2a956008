"""Another benchmark is frozen while batches come: from then on its texts are kept out, and shards say which they were
counted against."""

from __future__ import annotations

from typing import Any

import pytest

from jupiter import keys, manifests
from jupiter.blobs import ObjectInfo
from jupiter.blobs.memory import MemoryBlobs
from jupiter.bus.memory import MemoryBus
from jupiter.curator.benchmark import read_forbidden
from jupiter.curator.handlers import curate_batch
from jupiter.curator.shard import SAMPLES_FILE
from jupiter.errors import Retry
from jupiter.overlap.forbidden import count
from jupiter.sample_files import read_parquet
from tests.unit.curator.material import (
    BENCHMARK_TEXT,
    DOMAIN,
    GOOD,
    PASSAGE,
    commit_batch,
    deps_for,
    freeze_benchmark,
    register_generator,
    sample,
)
from tests.unit.curator.test_handlers import ANSWERS, LAST_ANSWERS, curate, details_of, manifest_of, publish, world

LATER = "Keys that are not basic types are skipped on request and the string that one is given back is in JSON format"


async def test_from_the_next_batch_on_the_new_texts_are_kept_out() -> None:
    bus, blobs = MemoryBus(), MemoryBlobs()
    deps = await world(bus, blobs)
    before = await curate(deps, commit_batch(blobs, list(map(sample, ANSWERS))))
    republished = await publish(deps, f"A user republishes it. {LATER}.")
    digest = freeze_benchmark(blobs, texts=[LATER], generation=2)
    copied = sample(f"{LATER}.")
    after = await curate(deps, commit_batch(blobs, [copied, *map(sample, LAST_ANSWERS)], sequence=2))
    assert after.dropped == {"contaminated_run": 1}
    details = details_of(blobs, after)
    assert details["contamination"] == {"benchmark": digest, "synthetic": 0, "real": 0, "items": {}}
    assert republished.document_id not in details["real_documents"]
    assert details["real_dropped"] == {"contaminated_run": 1}
    assert details_of(blobs, before)["contamination"]["benchmark"] != digest
    # What the shard before holds is still known.
    again = await curate(deps, commit_batch(blobs, [sample(GOOD, seed=2)], sequence=3))
    assert again.dropped == {"exact_duplicate": 1}


class RenewedMeanwhile(MemoryBlobs):
    """A store in which another benchmark is frozen right before somebody first asks whether one was."""

    def stat(self, key: str) -> ObjectInfo | None:
        if key == keys.benchmark_pointer_key(DOMAIN, 2) and super().stat(key) is None:
            freeze_benchmark(self, texts=[ANSWERS[1]], generation=2)
        return super().stat(key)


async def test_a_batch_that_was_judged_while_another_was_frozen_is_judged_again() -> None:
    bus, blobs = MemoryBus(), RenewedMeanwhile()
    deps = await world(bus, blobs)
    batch = commit_batch(blobs, list(map(sample, ANSWERS)))
    with pytest.raises(Retry, match="another benchmark was frozen") as again:
        await curate_batch(batch, deps)
    assert again.value.counts is False
    assert manifests.find(blobs, keys.shard_prefix(DOMAIN, batch.batch_id)) is None
    assert (await curate(deps, batch)).dropped == {"contaminated_run": 1}


@pytest.mark.parametrize("decontaminate", [True, False])
async def test_who_counts_the_stored_shard_finds_what_the_curator_found(*, decontaminate: bool) -> None:
    bus, blobs = MemoryBus(), MemoryBlobs()
    register_generator(blobs)
    freeze_benchmark(blobs)
    deps = deps_for(bus, blobs, decontaminate=decontaminate)
    leaked = await publish(deps, f"{BENCHMARK_TEXT}. {PASSAGE}", title="json.dumps", kind="api", group="json")
    for number in range(5):
        await publish(deps, f"Entry {number} of the manual tells the story of thing {number * 7} in brief words.")
    about: dict[str, Any] = {"document_id": leaked.document_id}
    copied = sample(f"{GOOD} Then {BENCHMARK_TEXT}.", **about)
    event = await curate(deps, commit_batch(blobs, [sample(answer, **about) for answer in ANSWERS[1:]] + [copied]))
    samples = read_parquet(manifests.download_bytes(blobs, manifest_of(blobs, event).file(SAMPLES_FILE)))
    forbidden = read_forbidden(blobs, DOMAIN, threshold=deps.settings.near_duplicate_threshold)
    assert forbidden is not None
    found = count(samples, forbidden.texts)
    assert found.model_dump() == details_of(blobs, event)["contamination"]
    assert (found.samples > 1) is not decontaminate
