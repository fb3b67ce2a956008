"""The shadow batch: a candidate repeats a batch beside the version that serves, or is found unfit; it never serves."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jupiter import keys, manifests
from jupiter.errors import Rejected, Retry, Unavailable
from jupiter.events import BatchGenerated, ShadowFailed, ShadowGenerated
from jupiter.generator.engines import EngineSettings
from jupiter.generator.handlers import Deps, generation_requested
from jupiter.generator.shadow import shadow_requested
from jupiter.manifests import Committed
from jupiter.modeling import NoRoom
from jupiter.records import Sample, Sampling
from tests.unit.generator.stage import DOMAIN, Stage, WatchedEngine
from tests.unit.generator.test_hot_reload import (
    change_architecture,
    change_chat_template,
    fill_with_nan,
    flip_a_bit,
    remove_weights,
    truncate,
)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    stage = Stage(directory=tmp_path)
    stage.store_version(1)
    return stage


async def incumbent(stage: Stage, **request: Any) -> tuple[Deps, BatchGenerated]:
    """Return a generator that serves version 1, and a batch that it made."""
    await stage.flip(1)
    deps = stage.deps()
    assert await deps.reloader.adopt(stage.entries[-1])
    (batch,) = await generation_requested(stage.request(1, version=1, **request), deps)
    assert isinstance(batch, BatchGenerated)
    return deps, batch


def engine_of(deps: Deps) -> WatchedEngine:
    assert isinstance(deps.engine, WatchedEngine)
    return deps.engine


def nothing_is_left_of_a_candidate(deps: Deps, *, loads: int) -> None:
    """Version 1 serves, whatever else was loaded is released, and no file of it lies on the disk."""
    engine = engine_of(deps)
    assert engine.loads == 1 + loads
    assert len(engine.released) == loads
    assert all(parameter.is_meta for handle in engine.released for parameter in handle.model.parameters())
    assert deps.serving.current is not None
    assert deps.serving.current.version == 1
    assert not any(parameter.is_meta for parameter in deps.serving.current.handle.model.parameters())
    directory = deps.reloader.versions.path(1).parent
    assert sorted(path.name for path in directory.iterdir()) == ["current", "generator_v1"]


def without_identity(samples: list[Sample]) -> list[dict[str, Any]]:
    return [sample.model_dump(exclude={"sample_id", "generator_version"}) for sample in samples]


async def test_an_identical_candidate_repeats_the_incumbents_batch_word_for_word(stage: Stage) -> None:
    deps, batch = await incumbent(stage, items=6)
    request = stage.shadow_request(batch, stage.store_checkpoint(100, seed=1))
    (event,) = await shadow_requested(request, deps)
    assert isinstance(event, ShadowGenerated)
    samples, repeated = stage.samples(batch), stage.samples(event)
    assert without_identity(repeated) == without_identity(samples)
    assert samples
    assert {sample.sample_id for sample in samples}.isdisjoint(sample.sample_id for sample in repeated)
    nothing_is_left_of_a_candidate(deps, loads=1)


async def test_the_batch_lies_under_its_evaluation_and_names_the_checkpoint_instead_of_a_version(stage: Stage) -> None:
    deps, batch = await incumbent(stage, items=6)
    request = stage.shadow_request(batch, stage.store_checkpoint(100, seed=2))
    (event,) = await shadow_requested(request, deps)
    assert isinstance(event, ShadowGenerated)
    assert event.manifest_key == f"evaluations/{DOMAIN}/{request.evaluation_id}/shadow/batch/manifest.json"
    assert (event.batch_id, event.batch_manifest_sha256) == (batch.batch_id, batch.manifest_sha256)
    made = manifests.read(stage.blobs, event.manifest_key, sha256=event.manifest_sha256).manifest
    was = manifests.read(stage.blobs, batch.manifest_key).manifest.details
    for same in ("items", "sampling", "engine", "batch_size", "candidates", "documents", "sequence"):
        assert made.details[same] == was[same]
    assert made.details["candidates"] == made.details["samples"] + sum(made.details["unusable"].values())
    assert (made.details["generator_version"], made.details["incumbent_version"]) == (None, 1)
    assert made.details["checkpoint_id"] == request.checkpoint_id
    samples = stage.samples(event)
    assert {sample.generator_version for sample in samples} <= {None}
    assert without_identity(samples) != without_identity(stage.samples(batch))
    assert {info.key.split("/")[0] for info in stage.blobs.list("") if made.work_id in info.key} == {"evaluations"}


async def test_a_redelivered_request_repeats_the_event_without_generating(stage: Stage) -> None:
    deps, batch = await incumbent(stage)
    request = stage.shadow_request(batch, stage.store_checkpoint(100))
    first = await shadow_requested(request, deps)
    assert await shadow_requested(request, stage.deps(instance="two")) == first
    nothing_is_left_of_a_candidate(deps, loads=1)


async def test_two_generators_at_once_publish_the_same_event(stage: Stage) -> None:
    deps, batch = await incumbent(stage)
    request = stage.shadow_request(batch, stage.store_checkpoint(100))
    one, two = await asyncio.gather(
        shadow_requested(request, deps), shadow_requested(request, stage.deps(instance="two"))
    )
    assert one == two


async def test_the_request_of_an_incumbent_that_was_replaced_meanwhile_is_answered_all_the_same(stage: Stage) -> None:
    deps, batch = await incumbent(stage)
    stage.store_version(2)
    await stage.flip(2)
    (event,) = await shadow_requested(stage.shadow_request(batch, stage.store_checkpoint(100)), deps)
    assert isinstance(event, ShadowGenerated)
    nothing_is_left_of_a_candidate(deps, loads=1)


@pytest.mark.parametrize(
    ("spoil", "reason", "loads"),
    [
        (truncate, "truncated", 0),
        (remove_weights, r"no model.safetensors", 0),
        (change_architecture, "disagree", 0),
        (flip_a_bit, r"AttestationError: file model.safetensors", 1),
        (change_chat_template, "chat_template", 1),
        (fill_with_nan, r"model.safetensors|not finite", 1),
    ],
)
async def test_a_spoiled_candidate_is_unfit_with_its_reason(
    stage: Stage, spoil: Callable[[Path], None], reason: str, loads: int
) -> None:
    deps, batch = await incumbent(stage)
    request = stage.shadow_request(batch, stage.store_checkpoint(100, spoil=spoil))
    (event,) = await shadow_requested(request, deps)
    assert isinstance(event, ShadowFailed)
    assert (event.evaluation_id, event.instance) == (request.evaluation_id, "one")
    assert re.search(reason, event.reason)
    assert str(stage.directory) not in event.reason
    assert manifests.find(stage.blobs, keys.shadow_batch_prefix(DOMAIN, request.evaluation_id)) is None
    assert len(engine_of(deps).released) == loads
    assert await shadow_requested(request, deps) == [event]


def replace_weights(stage: Stage, checkpoint: Committed) -> None:
    ref = checkpoint.manifest.file("model/model.safetensors")
    stage.blobs.put(ref.key, b"\x00" * ref.size)


def delete_weights(stage: Stage, checkpoint: Committed) -> None:
    stage.blobs.delete(checkpoint.manifest.file("model/model.safetensors").key)


def delete_manifest(stage: Stage, checkpoint: Committed) -> None:
    stage.blobs.delete(checkpoint.key)


@pytest.mark.parametrize(
    ("harm", "reason"), [(replace_weights, "sha256"), (delete_weights, "no object"), (delete_manifest, "no object")]
)
async def test_a_checkpoint_that_the_store_does_not_hold_is_unfit(
    stage: Stage, harm: Callable[[Stage, Committed], None], reason: str
) -> None:
    deps, batch = await incumbent(stage)
    checkpoint = stage.store_checkpoint(100)
    harm(stage, checkpoint)
    (event,) = await shadow_requested(stage.shadow_request(batch, checkpoint), deps)
    assert isinstance(event, ShadowFailed)
    assert reason in event.reason
    nothing_is_left_of_a_candidate(deps, loads=0)


async def test_a_checkpoint_whose_context_is_too_short_for_the_incumbents_prompts_is_unfit(stage: Stage) -> None:
    deps, batch = await incumbent(stage, sampling=Sampling(temperature=0, max_new_tokens=8))
    checkpoint = stage.store_checkpoint(100, context=16)
    (event,) = await shadow_requested(stage.shadow_request(batch, checkpoint), deps)
    assert isinstance(event, ShadowFailed)
    assert "context of 16" in event.reason
    nothing_is_left_of_a_candidate(deps, loads=1)


class CrowdedEngine(WatchedEngine):
    """An engine on a machine whose memory is used up."""

    def load(self, directory: Path) -> Any:
        raise NoRoom(f"{directory} needs 9 MiB as bfloat16, 1 MiB are free on cpu")


async def test_a_candidate_for_which_memory_is_short_is_tried_again_later(stage: Stage) -> None:
    deps, batch = await incumbent(stage)
    deps.engine = CrowdedEngine(EngineSettings(dtype="bfloat16", device="cpu", batch_size=64))
    with pytest.raises(Retry, match=r"waits for memory: .* 1 MiB are free") as raised:
        await shadow_requested(stage.shadow_request(batch, stage.store_checkpoint(100)), deps)
    assert raised.value.counts


async def test_without_the_incumbents_batch_there_is_nothing_to_repeat(stage: Stage) -> None:
    deps, batch = await incumbent(stage)
    request = stage.shadow_request(batch, stage.store_checkpoint(100))
    with pytest.raises(Rejected, match=r"cannot be repeated: .*sha256"):
        await shadow_requested(request.model_copy(update={"batch_manifest_sha256": "0" * 64}), deps)
    stage.blobs.delete(batch.manifest_key)
    with pytest.raises(Rejected, match="cannot be repeated"):
        await shadow_requested(request, deps)


async def test_a_store_that_is_away_is_waited_for_and_not_held_against_the_candidate(stage: Stage) -> None:
    deps, batch = await incumbent(stage)
    request = stage.shadow_request(batch, stage.store_checkpoint(100))
    stage.blobs.available = False
    with pytest.raises(Unavailable):
        await shadow_requested(request, deps)
    stage.blobs.available = True
    (event,) = await shadow_requested(request, deps)
    assert isinstance(event, ShadowGenerated)


async def test_batches_go_on_beside_the_shadow_and_one_of_many_generators_makes_it(tmp_path: Path) -> None:
    stage = Stage(directory=tmp_path, compute_slots=1, turn_s_max=0.01)
    stage.store_version(1)
    _, batch = await incumbent(stage, items=6)
    request = stage.shadow_request(batch, stage.store_checkpoint(100))
    async with stage.generator() as (_, engine), stage.generator(instance="two") as (_, other):
        await stage.until_published("loads", 2)
        await stage.bus.publish(request)
        for sequence in (2, 3):
            await stage.bus.publish(stage.request(sequence, version=1, items=6))
        batches = await stage.until_published("batches", 2)
        _, event = await stage.until_published("shadows", 2)
    assert isinstance(event, ShadowGenerated)
    assert {one.generator_version for one in batches} == {1}
    assert engine.loads + other.loads == 3
    assert len(engine.released) + len(other.released) == 1
    assert await stage.bus.dead_letters() == []


async def test_a_generator_that_is_stopped_in_the_middle_gives_the_shadow_to_another(stage: Stage) -> None:
    _, batch = await incumbent(stage, sampling=Sampling(temperature=1, top_p=1, max_new_tokens=1500))
    request = stage.shadow_request(batch, stage.store_checkpoint(100))
    async with stage.generator() as (deps, engine):
        await stage.until_published("loads", 1)
        engine.gate.clear()
        await stage.bus.publish(request)
        await asyncio.to_thread(engine.generating.wait, 20)
        deps.runtime.stop.set()
        await asyncio.sleep(0)
        engine.gate.set()
    async with stage.generator(instance="two"):
        _, event = await stage.until_published("shadows", 2)
    assert isinstance(event, ShadowGenerated)
    assert await stage.bus.dead_letters() == []
