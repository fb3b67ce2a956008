"""The curator's two handlers on the in-memory servers: what they commit, and what they do when called again."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from jupiter import keys, manifests
from jupiter.blobs import Blobs
from jupiter.blobs.memory import MemoryBlobs
from jupiter.bus import Bus
from jupiter.bus.memory import MemoryBus
from jupiter.controller.samples import newest_samples
from jupiter.curator.handlers import Deps, accept_document, curate_batch, pass_over_voided
from jupiter.curator.shard import REJECTED_FILE, SAMPLES_FILE, SIGNATURES_FILE
from jupiter.errors import Rejected, Retry
from jupiter.events import BatchGenerated, DocumentAccepted, GenerationVoided, ShardCurated
from jupiter.overlap.signatures import unpack
from jupiter.records import Manifest, Sample
from jupiter.sample_files import read_json_lines, read_parquet
from tests.unit.curator.material import (
    BENCHMARK_TEXT,
    DOMAIN,
    GOOD,
    PASSAGE,
    commit_batch,
    deps_for,
    document,
    freeze_benchmark,
    published,
    register_generator,
    sample,
    unusable,
)

ANSWERS = [
    GOOD,
    "If skipkeys is true, dict keys that are not basic types are skipped, and no TypeError is raised.",
    "The default separators give the compact form, and an indent of 4 is the way to the long one.",
    "A TypeError is raised for dict keys that are not basic types, unless skipkeys is true.",
]

MORE_ANSWERS = ["Separators have a default that is compact.", "Basic types are the only keys that it will not skip."]
LAST_ANSWERS = [
    "An obj is written as a string in the JSON format, and that string is what the caller is given back.",
    "With skipkeys one asks that keys of other types be skipped, so no TypeError is seen for such a dict.",
    "Four is the indent, and the separators are those of the compact form by default in this function.",
]


async def world(bus: Bus, blobs: Blobs, *, documents: int = 40) -> Deps:
    """Register a generator, freeze a benchmark and publish documents: all that a batch needs."""
    register_generator(blobs)
    freeze_benchmark(blobs)
    deps = deps_for(bus, blobs)
    await publish(deps, PASSAGE, title="json.dumps", kind="api", group="json")
    for number in range(documents):
        await publish(deps, f"Entry {number} of the manual tells the story of thing {number * 7} in brief words.")
    return deps


async def publish(deps: Deps, text: str, **changes: Any) -> DocumentAccepted:
    (event,) = await accept_document(published(text, **changes), deps)
    await deps.runtime.bus.publish(event)
    assert isinstance(event, DocumentAccepted)
    return event


async def curate(deps: Deps, batch: BatchGenerated) -> ShardCurated:
    """Do what the service loop does: handle and publish."""
    (event,) = await curate_batch(batch, deps)
    await deps.runtime.bus.publish(event)
    assert isinstance(event, ShardCurated)
    return event


def manifest_of(blobs: Blobs, event: ShardCurated) -> Manifest:
    return manifests.read(blobs, event.manifest_key, sha256=event.manifest_sha256).manifest


def details_of(blobs: Blobs, event: ShardCurated) -> dict[str, Any]:
    """Return the details that do not depend on when the batch was made: manifests hold their time."""
    return {name: value for name, value in manifest_of(blobs, event).details.items() if name != "batch_manifest_sha256"}


def files_of(blobs: Blobs, event: ShardCurated) -> dict[str, str]:
    return {ref.name: ref.sha256 for ref in manifest_of(blobs, event).files}


async def test_a_document_is_stored_once_and_its_event_is_the_same_every_time() -> None:
    bus, blobs = MemoryBus(), MemoryBlobs()
    deps = deps_for(bus, blobs)
    first = await accept_document(published(PASSAGE, title="json.dumps", kind="api", group="json"), deps)
    again = await accept_document(published(PASSAGE + "\n\n", source="elsewhere", split="held_out"), deps)
    assert first == again
    assert (await bus.publish(first[0])).duplicate is False
    assert (await bus.publish(again[0])).duplicate is True
    stored = list(blobs.list(f"documents/{DOMAIN}/"))
    assert [info.key for info in stored] == [keys.document_key(DOMAIN, document().document_id)]


async def test_a_malformed_document_is_rejected() -> None:
    with pytest.raises(Rejected, match="field `source`"):
        await accept_document(json.dumps({"text": "x"}).encode(), deps_for(MemoryBus(), MemoryBlobs()))


async def test_a_batch_waits_for_the_benchmark_and_for_the_first_generator() -> None:
    bus, blobs = MemoryBus(), MemoryBlobs()
    deps = deps_for(bus, blobs)
    batch = commit_batch(blobs, [sample(GOOD)])
    for prepare, what in ((freeze_benchmark, "benchmark"), (register_generator, "generator version 1")):
        with pytest.raises(Retry, match=what) as waiting:
            await curate_batch(batch, deps)
        assert waiting.value.counts is False
        prepare(blobs)
    # With everything there, a sample of a document that nobody published is no reason to wait.
    event = await curate(deps, batch)
    assert event.dropped == {"unknown_document": 1}


async def test_a_shard_holds_accepted_and_real_samples_and_accounts_for_every_candidate() -> None:
    bus, blobs = MemoryBus(), MemoryBlobs()
    deps = await world(bus, blobs)
    bad: dict[str, Any] = {"sample_id": "x"}
    batch = commit_batch(blobs, [*map(sample, ANSWERS), sample(GOOD.upper(), seed=2), sample("I'm sorry, no."), bad])
    event = await curate(deps, batch)
    manifest = manifest_of(blobs, event)
    details = manifest.details

    assert event.shard_id == batch.batch_id == manifest.work_id
    assert (event.candidates, event.accepted) == (7, 4)
    assert event.dropped == {"exact_duplicate": 1, "malformed": 1, "refusal": 1}
    assert event.candidates == event.accepted + sum(event.dropped.values())
    assert 0.30 <= details["real_ratio"] <= 0.40
    assert event.real_tokens / event.tokens == pytest.approx(details["real_ratio"], abs=1e-6)

    samples = read_parquet(manifests.download_bytes(blobs, manifest.file(SAMPLES_FILE)))
    assert len(samples) == event.samples
    assert [one.response for one in samples if one.origin == "synthetic"].sort() == sorted(ANSWERS).sort()
    real = [one for one in samples if one.origin == "real"]
    assert {one.document_id for one in real} == set(details["real_documents"])
    assert details["repeats"] == {"unique": len(real), "first_time": len(real), "max": 1, "by_uses": {"1": len(real)}}
    signatures = unpack(manifests.download_bytes(blobs, manifest.file(SIGNATURES_FILE)))
    assert set(signatures) == {one.sample_id for one in samples}
    assert event.diversity == details["diversity_figures"]
    assert [event.diversity[name] for name in ("made", "judged", "eligible")] == [6, 7, 6]
    assert event.diversity["acceptance"] == pytest.approx(4 / 6, abs=1e-4)
    assert event.diversity["duplicates"] == pytest.approx(1 / 7, abs=1e-4)
    assert event.diversity["repeats"] == pytest.approx(1 / 6, abs=1e-4)
    assert event.batch_sequence == batch.sequence
    assert details["batch_manifest_key"] == batch.manifest_key

    rejected = [json.loads(line) for line in read_json_lines(blobs.get(manifest.file(REJECTED_FILE).key))]
    assert sorted(line["reason"] for line in rejected) == ["exact_duplicate", "malformed", "refusal"]
    assert Sample.model_validate(next(line["sample"] for line in rejected if line["reason"] == "refusal"))


async def test_a_redelivered_batch_gives_the_same_event_and_no_second_shard() -> None:
    bus, blobs = MemoryBus(), MemoryBlobs()
    deps = await world(bus, blobs)
    batch = commit_batch(blobs, list(map(sample, ANSWERS)))
    first = await curate(deps, batch)
    await publish(deps, "A document that came after the shard and would change what is in it.")
    again = await curate_batch(batch, deps_for(bus, blobs))
    assert again == [first]
    assert (await bus.publish(again[0])).duplicate is True
    assert await bus.last_sequence("shards") == 1


async def test_a_batch_whose_samples_all_fail_still_gives_a_shard_an_empty_one() -> None:
    bus, blobs = MemoryBus(), MemoryBlobs()
    deps = await world(bus, blobs)
    event = await curate(deps, commit_batch(blobs, [sample("I'm sorry, no."), sample("")]))
    assert (event.samples, event.tokens, event.real_tokens, event.candidates) == (0, 0, 0, 2)
    assert read_parquet(blobs.get(manifest_of(blobs, event).file(SAMPLES_FILE).key)) == []
    nothing = await curate(deps, commit_batch(blobs, [], sequence=2))
    assert (nothing.samples, nothing.candidates) == (0, 0)


async def test_what_the_generator_could_not_use_is_counted_as_refused_and_shown() -> None:
    bus, blobs = MemoryBus(), MemoryBlobs()
    deps = await world(bus, blobs)
    lines = [unusable(4), unusable(5, "echoes_the_passage", "The passage again."), unusable(6)]
    event = await curate(deps, commit_batch(blobs, list(map(sample, ANSWERS)), unusable=lines))
    assert event.dropped == {"unusable_echoes_the_passage": 1, "unusable_empty": 2}
    assert (event.candidates, event.accepted) == (7, 4)
    shown = newest_samples(blobs, [event], accepted=False, origin="synthetic", limit=10)
    assert [(view.reason, view.filter) for view in shown][1] == ("unusable_echoes_the_passage", "generation")
    assert shown[1].sample["completion"] == "The passage again."
    assert shown[1].sample["document_id"] == document().document_id


async def test_a_curator_that_was_killed_makes_the_same_shards_as_one_that_was_not() -> None:
    """Two runs over the same streams; in the second, every batch meets a new process."""
    batches = [
        [sample(answer, seed=number) for number, answer in enumerate(ANSWERS)],
        [sample(ANSWERS[0], seed=9), sample("Keys of other types are skipped where skipkeys is true.", seed=8)],
        [sample(ANSWERS[2].replace("compact", "short"), seed=7), sample("An obj is written as a JSON string.", seed=6)],
    ]
    runs: list[list[dict[str, str]]] = []
    for restarts in (False, True):
        bus, blobs = MemoryBus(), MemoryBlobs()
        deps = await world(bus, blobs)
        made = []
        for sequence, samples in enumerate(batches, start=1):
            deps = deps_for(bus, blobs) if restarts else deps
            event = await curate(deps, commit_batch(blobs, samples, sequence=sequence))
            made.append(files_of(blobs, event) | {"details": json.dumps(details_of(blobs, event))})
        runs.append(made)
    assert runs[0] == runs[1]
    # What was in the first shard is known in the later ones.
    assert '"exact_duplicate": 1' in runs[0][1]["details"]


async def test_killed_between_manifest_and_event_the_shard_is_published_by_the_next_process() -> None:
    bus, blobs = MemoryBus(), MemoryBlobs()
    deps = await world(bus, blobs)
    batch = commit_batch(blobs, list(map(sample, ANSWERS)))
    (lost,) = await curate_batch(batch, deps)  # committed, never published
    event = await curate(deps_for(bus, blobs), batch)
    assert event == lost
    following = await curate(deps, commit_batch(blobs, [sample(GOOD, seed=5)], sequence=2))
    assert following.dropped == {"exact_duplicate": 1}


async def test_when_all_real_data_is_used_up_the_batch_is_held_until_more_is_published() -> None:
    bus, blobs = MemoryBus(), MemoryBlobs()
    register_generator(blobs)
    freeze_benchmark(blobs)
    deps = deps_for(bus, blobs, real_repeats_max=2)
    await publish(deps, PASSAGE)
    # As much again and a little more as the passage has tokens: it can be the real part of either batch.
    batches = [
        commit_batch(blobs, [sample(answer) for answer in pair], sequence=sequence)
        for sequence, pair in enumerate((ANSWERS[:3], [*ANSWERS[3:], *MORE_ANSWERS], LAST_ANSWERS), start=1)
    ]
    assert (await curate(deps, batches[0])).real_tokens > 0
    assert (await curate(deps, batches[1])).real_tokens > 0
    with pytest.raises(Retry, match="too little is left of 1 real samples, each used 2 times at most") as waiting:
        await curate_batch(batches[2], deps)
    assert waiting.value.counts is False
    assert manifests.find(blobs, keys.shard_prefix(DOMAIN, batches[2].batch_id)) is None
    await publish(deps, f"A new text of the same length. {PASSAGE.replace('dict', 'map')}")
    event = await curate(deps, batches[2])
    assert event.accepted > 0


async def test_samples_that_no_real_one_fits_are_left_out_with_a_warning_and_hold_nothing_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bus, blobs = MemoryBus(), MemoryBlobs()
    register_generator(blobs)
    freeze_benchmark(blobs)
    deps = deps_for(bus, blobs)
    await publish(deps, PASSAGE)
    short = sample(MORE_ANSWERS[0])
    with caplog.at_level(logging.WARNING):
        event = await curate(deps, commit_batch(blobs, [short]))
    assert (event.samples, event.accepted, event.dropped) == (0, 0, {"no_real_sample_fits": 1})
    assert "batch 1: all its 1 accepted samples are left out (no_real_sample_fits)" in caplog.text
    assert "publish shorter documents" in caplog.text
    # The watch on a new version's first shards still learns that the generator did well.
    assert event.diversity["acceptance"] == 1
    (shown,) = newest_samples(blobs, [event], accepted=False, origin="synthetic", limit=10)
    assert shown.reason == "no_real_sample_fits"
    await publish(deps, "Entry 9 of the manual is in brief words.")
    following = await curate(deps, commit_batch(blobs, [short], sequence=2))
    assert (following.accepted, following.dropped) == (1, {}), "it is no duplicate of what was left out"


async def test_a_withdrawn_document_is_as_if_it_had_never_been() -> None:
    bus, blobs = MemoryBus(), MemoryBlobs()
    deps = await world(bus, blobs)
    blobs.delete(keys.document_key(DOMAIN, document().document_id))
    event = await curate(deps, commit_batch(blobs, [sample(GOOD)]))
    assert event.dropped == {"unknown_document": 1}
    assert document().document_id not in manifest_of(blobs, event).details["real_documents"]


async def test_with_an_earlier_shard_lost_the_curator_waits_instead_of_doubling_data() -> None:
    bus, blobs = MemoryBus(), MemoryBlobs()
    deps = await world(bus, blobs)
    lost = manifest_of(blobs, await curate(deps, commit_batch(blobs, [sample(GOOD)]))).file(SIGNATURES_FILE)
    data = blobs.get(lost.key)
    blobs.delete(lost.key)
    batch = commit_batch(blobs, [sample(GOOD, seed=3)], sequence=2)
    with pytest.raises(Retry, match="restore the object") as waiting:
        await curate_batch(batch, deps)
    assert waiting.value.counts is False
    blobs.put(lost.key, data)
    assert (await curate(deps, batch)).dropped == {"exact_duplicate": 1}


async def test_a_broken_batch_is_rejected_for_good() -> None:
    bus, blobs = MemoryBus(), MemoryBlobs()
    deps = await world(bus, blobs)
    batch = commit_batch(blobs, [sample(GOOD)])
    with pytest.raises(Rejected, match="sha256"):
        await curate_batch(batch.model_copy(update={"manifest_sha256": "0" * 64}), deps)
    with pytest.raises(Rejected, match="no object"):
        await curate_batch(batch.model_copy(update={"manifest_key": "batches/none/manifest.json"}), deps)


async def test_samples_of_a_newer_generator_are_curated_and_not_counted_as_malformed() -> None:
    bus, blobs = MemoryBus(), MemoryBlobs()
    deps = await world(bus, blobs)
    batch = commit_batch(blobs, [{**sample(GOOD, seed=1).model_dump(mode="json"), "language": "en"}])
    shard = await curate(deps, batch)
    assert (shard.accepted, shard.dropped) == (1, {})


async def test_a_voided_request_is_passed_over() -> None:
    deps = deps_for(MemoryBus(), MemoryBlobs())
    event = GenerationVoided(domain=DOMAIN, request_id="a" * 64, generator_version=1, reason="a newer one is current")
    await pass_over_voided(event, deps)


async def test_contaminated_real_data_is_left_out_and_counted() -> None:
    bus, blobs = MemoryBus(), MemoryBlobs()
    register_generator(blobs)
    secret = "The secret answer to the examination is that forty two green bottles hang upon the wall of the hall"
    freeze_benchmark(blobs, texts=[secret])
    deps = deps_for(bus, blobs)
    await publish(deps, PASSAGE, title="json.dumps", kind="api", group="json")
    await publish(deps, f"A user republishes it. {secret}.")
    for number in range(20):
        await publish(deps, f"Entry {number} of the manual tells the story of thing {number * 7} in brief words.")
    event = await curate(deps, commit_batch(blobs, list(map(sample, ANSWERS))))
    details = manifest_of(blobs, event).details
    assert details["real_dropped"] == {"contaminated_run": 1}
    assert details["real_available"] == 4 + 20  # four forms of the entry, and the plain documents


@pytest.mark.parametrize("decontaminate", [True, False])
async def test_what_overlaps_with_the_benchmark_is_dropped_or_at_the_least_counted(*, decontaminate: bool) -> None:
    """The benchmark, leaked in a document that everything about it is grounded in."""
    bus, blobs = MemoryBus(), MemoryBlobs()
    register_generator(blobs)
    freeze_benchmark(blobs)
    deps = deps_for(bus, blobs, decontaminate=decontaminate)
    leaked = await publish(deps, f"{BENCHMARK_TEXT}. {PASSAGE}", title="json.dumps", kind="api", group="json")
    for number in range(40):
        await publish(deps, f"Entry {number} of the manual tells the story of thing {number * 7} in brief words.")
    about = {"document_id": leaked.document_id}
    copied = sample(f"{GOOD} Then {BENCHMARK_TEXT}.", **about)
    event = await curate(deps, commit_batch(blobs, [sample(answer, **about) for answer in ANSWERS[1:]] + [copied]))
    found = details_of(blobs, event)["contamination"]
    assert found["benchmark"] == json.loads(blobs.get(f"benchmarks/{DOMAIN}/frozen"))["digest"]
    assert event.contaminated == found["synthetic"] + found["real"]
    assert sum(count for reason, count in event.dropped.items() if reason.startswith("contaminated")) == decontaminate
    assert found["synthetic"] == (not decontaminate)
    dropped = details_of(blobs, event)["real_dropped"]
    # As a question's answer, with a question behind it and with another one: each is a real sample.
    assert dropped.get("contaminated_run", 0) == (3 if decontaminate else 0)
    assert found["items"] == ({} if decontaminate else {"item-0": ""})
