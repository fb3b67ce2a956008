"""Hot reload: what was attested serves, what was not never does, and no request is lost meanwhile."""

from __future__ import annotations

import asyncio
import errno
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from jupiter.errors import Retry
from jupiter.events import BatchGenerated, GenerationVoided, GeneratorLoaded, GeneratorLoadFailed
from jupiter.generator.engines import EngineSettings, Prompt
from jupiter.generator.engines.transformers import TransformersEngine
from jupiter.modeling import NoRoom
from jupiter.records import Sampling
from tests.tiny_model import make_tiny_model
from tests.unit.generator.stage import SAMPLING, Stage, until


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(directory=tmp_path)


async def test_a_late_joiner_loads_what_the_ledger_says(stage: Stage) -> None:
    for version in (1, 2):
        stage.store_version(version)
        await stage.flip(version, announce=False)
    async with stage.generator() as (deps, engine):
        (loaded,) = await stage.until_published("loads", 1)
        assert isinstance(loaded, GeneratorLoaded)
        assert (loaded.version, loaded.ledger_sequence, loaded.instance) == (2, 2, "one")
        assert engine.loads == 1
        await until(lambda: deps.serving.current is not None)


async def test_a_promotion_is_loaded_and_the_link_follows(stage: Stage) -> None:
    stage.store_version(1)
    await stage.flip(1)
    link = stage.config.data_dir / "generators" / "one" / "current"
    async with stage.generator():
        await stage.until_published("loads", 1)
        await until(link.is_symlink)
        assert str(link.readlink()) == "generator_v1"
        stage.store_version(2)
        await stage.flip(2)
        await stage.until_published("loads", 2)
        assert str(link.readlink()) == "generator_v2"
        assert (link / "model.safetensors").is_file()
        assert (link / "golden.json").is_file()


async def test_a_missed_announcement_is_made_good_by_the_first_request(stage: Stage) -> None:
    for version in (1, 2):
        stage.store_version(version)
    await stage.flip(1)
    async with stage.generator():
        await stage.until_published("loads", 1)
        await stage.flip(2, announce=False)
        await stage.bus.publish(stage.request(1, version=2))
        (batch,) = await stage.until_published("batches", 1)
        assert isinstance(batch, BatchGenerated)
        assert batch.generator_version == 2


async def test_under_load_no_request_is_lost_and_every_batch_is_of_one_version(stage: Stage, tmp_path: Path) -> None:
    for version in (1, 2):
        stage.store_version(version)
    await stage.flip(1)
    old = [stage.request(sequence, version=1) for sequence in range(1, 9)]
    async with stage.generator():
        for request in old:
            await stage.bus.publish(request)
        await stage.until_published("batches", 2)
        await stage.flip(2)
        new = [stage.request(sequence, version=2) for sequence in range(9, 13)]
        for request in new:
            await stage.bus.publish(request)
        outcomes = await stage.until_published("batches", len(old) + len(new))
    assert await stage.bus.dead_letters() == []
    requests = {request.request_id: request for request in old + new}
    batches = [event for event in outcomes if isinstance(event, BatchGenerated)]
    voided = [event for event in outcomes if isinstance(event, GenerationVoided)]
    assert {event.batch_id for event in batches} | {event.request_id for event in voided} == set(requests)
    assert {event.generator_version for event in batches} == {1, 2}
    assert {event.generator_version for event in voided} == {1}
    for event in batches:
        assert event.generator_version == requests[event.batch_id].generator_version
        samples = stage.samples(event)
        assert {sample.generator_version for sample in samples} == {event.generator_version}
        # Regenerate the batch on the weights that it names: not one of its samples came from others.
        directory = make_tiny_model(tmp_path / f"again_{event.batch_id}", seed=event.generator_version)
        assert regenerate(directory, [(sample.prompt or "", sample.seed or 0) for sample in samples]) == [
            sample.completion for sample in samples
        ]


def regenerate(directory: Path, prompts: list[tuple[str, int]]) -> list[str]:
    engine = TransformersEngine(EngineSettings(dtype="bfloat16", device="cpu", batch_size=64))
    handle = engine.load(directory)
    asked = [Prompt(text=text, seed=seed, stop=("\n",), template=text[:9]) for text, seed in prompts]
    return [one.text for one in engine.generate(handle, asked, sampling=SAMPLING, progress=lambda *_: None)]


async def test_a_begun_request_finishes_on_the_old_version_while_the_new_one_loads(stage: Stage) -> None:
    for version in (1, 2):
        stage.store_version(version)
    await stage.flip(1)
    async with stage.generator() as (deps, engine):
        await stage.until_published("loads", 1)
        engine.gate.clear()
        await stage.bus.publish(stage.request(1, version=1))
        await asyncio.to_thread(engine.generating.wait, 20)
        await stage.flip(2)
        loads = await stage.until_published("loads", 2)
        assert loads[1].version == 2
        assert deps.serving.current is not None
        assert deps.serving.current.version == 2
        assert await stage.published("batches") == []
        engine.gate.set()
        (batch,) = await stage.until_published("batches", 1)
    assert isinstance(batch, BatchGenerated)
    assert batch.generator_version == 1


async def test_under_the_compute_lease_a_reload_takes_its_turn_within_a_batch(tmp_path: Path) -> None:
    stage = Stage(directory=tmp_path, compute_slots=1, turn_s_max=0.01)
    for version in (1, 2):
        stage.store_version(version)
    await stage.flip(1)
    long = Sampling(temperature=1.0, top_p=1.0, max_new_tokens=1500)
    async with stage.generator() as (_, engine):
        await stage.until_published("loads", 1)
        await stage.bus.publish(stage.request(1, version=1, items=12, sampling=long))
        await asyncio.to_thread(engine.generating.wait, 20)
        await stage.flip(2)
        await stage.until_published("loads", 2)
        before = await stage.published("batches")
        (batch,) = await stage.until_published("batches", 1)
    assert before == []
    assert batch.generator_version == 1


async def test_a_rollback_is_instant_from_memory(stage: Stage) -> None:
    for version in (1, 2):
        stage.store_version(version)
    await stage.flip(1)
    async with stage.generator() as (_, engine):
        await stage.until_published("loads", 1)
        await stage.flip(2)
        await stage.until_published("loads", 2)
        await stage.flip(1)
        loads = await stage.until_published("loads", 3)
        assert [(load.version, load.ledger_sequence) for load in loads] == [(1, 1), (2, 2), (1, 3)]
        assert engine.loads == 2
        await stage.bus.publish(stage.request(1, version=2))
        await stage.bus.publish(stage.request(2, version=1))
        voided, batch = await stage.until_published("batches", 2)
    assert isinstance(voided, GenerationVoided)
    assert isinstance(batch, BatchGenerated)
    assert batch.generator_version == 1


async def test_only_the_current_and_the_previous_version_stay_in_memory(stage: Stage) -> None:
    for version in (1, 2, 3):
        stage.store_version(version)
    async with stage.generator() as (deps, engine):
        for version in (1, 2, 3):
            await stage.flip(version)
            await stage.until_published("loads", version)
        await until(lambda: len(engine.released) == 1)
        assert deps.serving.previous is not None
        assert deps.serving.previous.version == 2


def truncate(model: Path) -> None:
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-64])


def flip_a_bit(model: Path) -> None:
    weights = bytearray((model / "model.safetensors").read_bytes())
    weights[-1000] ^= 0x40
    (model / "model.safetensors").write_bytes(weights)


def fill_with_nan(model: Path) -> None:
    weights = load_file(model / "model.safetensors")
    weights["model.norm.weight"].fill_(float("nan"))
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})


def change_architecture(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))


def change_tokenizer(model: Path) -> None:
    path = model / "tokenizer.json"
    path.write_text(path.read_text().replace('"add_prefix_space": false', '"add_prefix_space": true'))


def change_chat_template(model: Path) -> None:
    (model / "chat_template.jinja").write_text("{{ messages }}")


def remove_weights(model: Path) -> None:
    (model / "model.safetensors").unlink()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (truncate, "truncated"),
        (flip_a_bit, r"model.safetensors"),
        (fill_with_nan, r"model.safetensors|not finite"),
        (change_architecture, "disagree"),
        (change_tokenizer, "tokenizer"),
        (change_chat_template, "chat_template"),
        (remove_weights, r"no model.safetensors"),
    ],
)
async def test_a_spoiled_version_is_refused_with_its_reason_and_the_old_one_serves_on(
    stage: Stage, spoil: Callable[[Path], None], reason: str
) -> None:
    stage.store_version(1)
    stage.store_version(2, spoil=spoil)
    await stage.flip(1)
    async with stage.generator() as (deps, _):
        await stage.until_published("loads", 1)
        await stage.flip(2)
        failed = (await stage.until_published("loads", 2))[1]
        assert isinstance(failed, GeneratorLoadFailed)
        assert failed.version == 2
        assert re.search(reason, failed.reason)
        assert deps.serving.current is not None
        assert deps.serving.current.version == 1
        await stage.flip(1)
        await stage.bus.publish(stage.request(1, version=1))
        (batch,) = await stage.until_published("batches", 1)
        assert batch.generator_version == 1


async def test_bytes_that_changed_in_the_store_are_refused(stage: Stage) -> None:
    stage.store_version(1)
    committed = stage.store_version(2)
    ref = committed.manifest.file("model/model.safetensors")
    stage.blobs.put(ref.key, b"\x00" * ref.size)
    await stage.flip(1)
    async with stage.generator() as (deps, _):
        await stage.until_published("loads", 1)
        await stage.flip(2)
        failed = (await stage.until_published("loads", 2))[1]
        assert isinstance(failed, GeneratorLoadFailed)
        assert "sha256" in failed.reason
        assert deps.serving.current is not None
        assert deps.serving.current.version == 1


async def test_a_version_that_was_damaged_on_this_disk_only_is_fetched_again(stage: Stage) -> None:
    stage.store_version(1)
    await stage.flip(1)
    async with stage.generator():
        await stage.until_published("loads", 1)
    truncate(stage.config.data_dir / "generators" / "one" / "generator_v1")
    deps = stage.deps()
    assert await deps.reloader.adopt(stage.entries[0])
    assert [type(event) for event in await stage.published("loads")] == [GeneratorLoaded]


@pytest.mark.parametrize(
    "fault",
    [
        NoRoom("it needs 6000 MiB as bfloat16, 500 MiB are free"),
        Retry("the vLLM engine died while version 2 was brought in"),
        OSError(errno.ENOSPC, "No space left on device"),
        MemoryError(),
    ],
    ids=lambda fault: type(fault).__name__,
)
async def test_a_fault_of_the_machine_is_no_verdict_on_a_promotion(stage: Stage, fault: Exception) -> None:
    """With one generator, a single GeneratorLoadFailed takes the promotion back."""
    for version in (1, 2):
        stage.store_version(version)
    await stage.flip(1)
    async with stage.generator() as (deps, engine):
        deps.reloader.retry_s = 0.05
        await stage.until_published("loads", 1)
        engine.faults = [fault, fault, fault]
        await stage.flip(2)
        (_, second) = await stage.until_published("loads", 2)
        assert engine.faults == []
        assert isinstance(second, GeneratorLoaded)
        assert second.version == 2


async def test_while_the_machine_is_at_fault_it_says_so_and_tries_no_more_often_for_all_that_is_asked(
    stage: Stage,
) -> None:
    for version in (1, 2):
        stage.store_version(version)
    await stage.flip(1)
    async with stage.generator() as (deps, engine):
        await stage.until_published("loads", 1)
        engine.faults = [NoRoom("500 MiB are free")] * 100
        deps.reloader.retry_s = 3600
        await stage.flip(2)
        await stage.bus.publish(stage.request(1, version=2))

        async def says_so() -> bool:
            said = [entry.event async for entry in stage.bus.read(f"status.{stage.domain}.>", follow=False)]
            return any("version 2 waits for this machine: NoRoom: 500 MiB" in str(status) for status in said)

        await until(says_so)
        deps.reloader.look()
        await asyncio.sleep(0.2)
        assert engine.loads == 2
        assert deps.serving.current is not None
        assert deps.serving.current.version == 1
        await stage.flip(1)  # the controller gave up
        loads = await stage.until_published("loads", 2)
    assert [(load.version, load.ledger_sequence) for load in loads] == [(1, 1), (1, 3)]


async def test_where_memory_is_short_the_version_that_is_kept_for_a_rollback_makes_room(stage: Stage) -> None:
    for version in (1, 2, 3):
        stage.store_version(version)
    async with stage.generator() as (deps, engine):
        for version in (1, 2):
            await stage.flip(version)
            await stage.until_published("loads", version)
        assert deps.serving.previous is not None
        oldest = deps.serving.previous.handle
        engine.faults = [NoRoom("500 MiB are free")]
        await stage.flip(3)
        loads = await stage.until_published("loads", 3)
        assert [load.version for load in loads] == [1, 2, 3]
        assert engine.released == [oldest]
        assert deps.serving.previous is not None
        assert deps.serving.previous.version == 2


async def test_a_store_that_is_away_is_waited_for(stage: Stage) -> None:
    stage.store_version(1)
    await stage.flip(1)
    stage.blobs.available = False
    async with stage.generator():
        await asyncio.sleep(0.05)
        stage.blobs.available = True
        (loaded,) = await stage.until_published("loads", 1)
    assert isinstance(loaded, GeneratorLoaded)
