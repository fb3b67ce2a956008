"""Requests: made once, repeated without generating, voided, refused, given back."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest

from jupiter import keys, manifests
from jupiter.errors import Rejected, Retry
from jupiter.events import BatchGenerated, GenerationVoided, GeneratorLoaded
from jupiter.generator.handlers import Deps, generation_requested
from jupiter.modeling import AttestationError, NoRoom, UnfitModel
from jupiter.records import Sampling
from jupiter.sample_files import read_json_lines
from tests.unit.generator.stage import DOMAIN, Stage, WatchedEngine


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    stage = Stage(directory=tmp_path)
    stage.store_version(1)
    return stage


async def serving(stage: Stage, *, instance: str = "one") -> Deps:
    """Return the handlers' dependencies with version 1 loaded, no service around them."""
    if not stage.entries:
        await stage.flip(1)
    deps = stage.deps(instance=instance)
    assert await deps.reloader.adopt(stage.entries[-1])
    return deps


def engine_of(deps: Deps) -> WatchedEngine:
    assert isinstance(deps.engine, WatchedEngine)
    return deps.engine


async def test_a_batch_holds_everything_that_regenerates_a_sample(stage: Stage) -> None:
    deps = await serving(stage)
    request = stage.request(1, version=1)
    (event,) = await generation_requested(request, deps)
    assert isinstance(event, BatchGenerated)
    assert event.batch_id == request.request_id
    samples = stage.samples(event)
    assert event.samples == len(samples) > 0
    for sample in samples:
        assert sample.origin == "synthetic"
        assert sample.document_id in {document.document_id for document in stage.documents}
        assert sample.seed is not None
        assert sample.prompt is not None
        assert sample.completion is not None
        assert sample.sampling == request.sampling
        assert sample.template == f"{sample.task}/1"
        assert sample.generator_version == 1
    details = manifests.read(stage.blobs, event.manifest_key).manifest.details
    assert details["documents"] == sorted(document.document_id for document in stage.documents)
    assert details["candidates"] == 3
    assert details["candidates"] == details["samples"] + sum(details["unusable"].values())
    assert details["items"] == [item.model_dump(mode="json") for item in request.items]


async def test_the_same_request_makes_the_same_bytes(stage: Stage) -> None:
    files = []
    for instance in ("one", "two"):
        deps = await serving(stage, instance=instance)
        (event,) = await generation_requested(stage.request(1, version=1), deps)
        assert isinstance(event, BatchGenerated)
        files.append(manifests.read(stage.blobs, event.manifest_key).manifest.file("samples.jsonl.zst").sha256)
        stage.blobs.delete(event.manifest_key)
    assert files[0] == files[1]


async def test_a_redelivered_request_repeats_the_event_without_generating(stage: Stage) -> None:
    deps = await serving(stage)
    request = stage.request(1, version=1)
    first = await generation_requested(request, deps)
    assert await generation_requested(request, deps) == first
    assert engine_of(deps).batches == 1


async def test_two_generators_on_one_request_publish_the_same_event(stage: Stage) -> None:
    one, two = await serving(stage), await serving(stage, instance="two")
    request = stage.request(1, version=1)
    events = await asyncio.gather(generation_requested(request, one), generation_requested(request, two))
    assert events[0] == events[1]


async def test_a_request_for_another_version_than_the_current_is_void(stage: Stage) -> None:
    deps = await serving(stage)
    stage.store_version(2)
    await stage.flip(2)
    request = stage.request(1, version=1)
    (event,) = await generation_requested(request, deps)
    assert isinstance(event, GenerationVoided)
    assert event.request_id == request.request_id
    assert "version 2 is current" in event.reason
    assert manifests.find(stage.blobs, keys.batch_prefix(DOMAIN, request.request_id)) is None


async def test_a_batch_that_was_made_before_the_flip_is_not_voided_after_it(stage: Stage) -> None:
    deps = await serving(stage)
    request = stage.request(1, version=1)
    first = await generation_requested(request, deps)
    stage.store_version(2)
    await stage.flip(2)
    assert await generation_requested(request, deps) == first


async def test_a_request_for_a_version_that_is_still_loading_waits_without_using_an_attempt(stage: Stage) -> None:
    await stage.flip(1)
    with pytest.raises(Retry, match="not loaded yet") as raised:
        await generation_requested(stage.request(1, version=1), stage.deps())
    assert not raised.value.counts


async def test_a_request_before_any_version_is_registered_waits(stage: Stage) -> None:
    with pytest.raises(Retry, match="ledger is empty") as raised:
        await generation_requested(stage.request(1, version=1), stage.deps())
    assert not raised.value.counts


async def test_an_unknown_task_is_rejected_by_name(stage: Stage) -> None:
    deps = await serving(stage)
    request = stage.request(1, version=1)
    odd = request.model_copy(update={"items": (request.items[0].model_copy(update={"task": "sing"}),)})
    with pytest.raises(Rejected, match=r"no task type 'sing'; there are: .*restate"):
        await generation_requested(odd, deps)


async def test_a_prompt_beyond_the_models_context_is_rejected(stage: Stage) -> None:
    deps = await serving(stage)
    request = stage.request(1, version=1, sampling=Sampling(max_new_tokens=4000))
    with pytest.raises(Rejected, match="context of 2048"):
        await generation_requested(request, deps)


async def test_a_version_whose_last_batch_fails_is_released_all_the_same(stage: Stage) -> None:
    deps = await serving(stage)
    deps.serving.keep_previous = False
    engine = engine_of(deps)
    assert deps.serving.current is not None
    old = deps.serving.current.handle
    stage.store_version(2)
    engine.gate.clear()
    engine.batch_faults = [Retry("the vLLM engine died while it generated")]
    batch = asyncio.create_task(generation_requested(stage.request(1, version=1), deps))
    await asyncio.to_thread(engine.generating.wait, 20)
    assert await deps.reloader.adopt(await stage.flip(2))
    assert engine.released == []
    engine.gate.set()
    with pytest.raises(Retry, match="died"):
        await batch
    assert engine.released == [old]
    assert deps.serving.versions() == {2}


async def test_an_engine_that_lacks_memory_to_come_back_is_waited_for_without_using_an_attempt(stage: Stage) -> None:
    deps = await serving(stage)
    engine_of(deps).batch_faults = [NoRoom("it needs 6000 MiB, 500 MiB are free")]
    request = stage.request(1, version=1)
    with pytest.raises(Retry, match=r"version 1 waits for memory: .* 500 MiB are free") as raised:
        await generation_requested(request, deps)
    assert not raised.value.counts
    (event,) = await generation_requested(request, deps)
    assert isinstance(event, BatchGenerated)


@pytest.mark.parametrize("verdict", [UnfitModel("it cannot be loaded in place"), AttestationError("another sha256")])
async def test_the_serving_version_that_is_damaged_here_is_fetched_anew_and_no_request_is_lost(
    stage: Stage, verdict: Exception
) -> None:
    await stage.flip(1)
    weights = stage.config.data_dir / "generators" / "one" / "generator_v1" / "model.safetensors"
    async with stage.generator() as (_, engine):
        await stage.until_published("loads", 1)
        whole = weights.read_bytes()
        weights.write_bytes(whole[:-64])
        engine.batch_faults = [verdict]
        await stage.bus.publish(stage.request(1, version=1))
        (event,) = await stage.until_published("batches", 1)
        assert isinstance(event, BatchGenerated)
        assert weights.read_bytes() == whole
        assert engine.loads == 3  # as it was at first, as it lay here, as it was fetched anew
    assert {type(load) for load in await stage.published("loads")} == {GeneratorLoaded}
    assert await stage.bus.dead_letters() == []


async def test_a_version_that_fails_when_another_serves_already_takes_nothing_away(stage: Stage) -> None:
    deps = await serving(stage)
    engine = engine_of(deps)
    stage.store_version(2)
    engine.gate.clear()
    engine.batch_faults = [UnfitModel("it cannot be loaded in place")]
    request = stage.request(1, version=1)
    batch = asyncio.create_task(generation_requested(request, deps))
    await asyncio.to_thread(engine.generating.wait, 20)
    assert await deps.reloader.adopt(await stage.flip(2))
    engine.gate.set()
    with pytest.raises(Retry) as raised:
        await batch
    assert not raised.value.counts
    assert deps.serving.current is not None
    assert deps.serving.current.version == 2
    (event,) = await generation_requested(request, deps)
    assert isinstance(event, GenerationVoided)


async def test_nothing_is_ever_made_of_held_out_or_missing_text(stage: Stage) -> None:
    deps = await serving(stage)
    stage.add_document(100, split="held_out")
    request = stage.request(1, version=1, items=3)
    missing = request.items[1].model_copy(update={"document_id": hashlib.sha256(b"gone").hexdigest()})
    beyond = request.items[2].model_copy(update={"chunk_index": 7})
    spoiled = request.model_copy(update={"items": (request.items[0], missing, beyond)})
    (event,) = await generation_requested(spoiled, deps)
    assert isinstance(event, BatchGenerated)
    assert event.samples == 0
    manifest = manifests.read(stage.blobs, event.manifest_key).manifest
    assert manifest.details["unusable"] == {"chunk_missing": 1, "document_held_out": 1, "document_missing": 1}
    lines = list(read_json_lines(stage.blobs.get(manifest.file("unusable.jsonl.zst").key)))
    assert len(lines) == 3


async def test_a_stopped_generator_gives_its_request_back_and_another_makes_it(stage: Stage) -> None:
    await stage.flip(1)
    request = stage.request(1, version=1, sampling=Sampling(temperature=1, top_p=1, max_new_tokens=1500))
    async with stage.generator() as (deps, engine):
        await stage.bus.publish(request)
        engine.gate.clear()
        await asyncio.to_thread(engine.generating.wait, 20)
        deps.runtime.stop.set()
        await asyncio.sleep(0)
        engine.gate.set()
    async with stage.generator(instance="two"):
        (event,) = await stage.until_published("batches", 1)
    assert isinstance(event, BatchGenerated)
    assert event.batch_id == request.request_id


async def test_progress_is_told_while_generating(stage: Stage) -> None:
    await stage.flip(1)
    async with stage.generator() as (_, engine):
        engine.gate.clear()
        await stage.bus.publish(stage.request(1, version=1))
        await asyncio.to_thread(engine.generating.wait, 20)
        engine.gate.set()
        await stage.until_published("batches", 1)
    statuses = [entry.event async for entry in stage.bus.read(f"status.{DOMAIN}.>", follow=False)]
    assert {status.event_id for status in statuses}
    assert [getattr(status, "service", None) for status in statuses] == ["generator"]
