"""The benchmark is frozen once, from a settled corpus, and whoever comes later adopts it."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path

import pytest

from jupiter import keys, manifests
from jupiter.blobs.memory import MemoryBlobs
from jupiter.bus.memory import MemoryBus
from jupiter.errors import IntegrityError
from jupiter.evaluator.benchmark import Benchmark
from jupiter.evaluator.benchmarks import find_frozen, freeze, shortfall
from jupiter.evaluator.general import forbidden_texts
from jupiter.evaluator.items import Item
from jupiter.events import BenchmarkFrozen, DocumentForgotten
from jupiter.sample_files import read_json_lines
from tests.unit.evaluator_service.stage import (
    DOMAIN,
    freezer_of,
    frozen_benchmark,
    publish_document,
    published,
    runtime,
    status_details,
    stopped_after,
    until,
)


async def test_a_settled_corpus_is_frozen_and_announced(tmp_path: Path) -> None:
    bus, blobs = MemoryBus(), MemoryBlobs()
    for number in range(30):
        await publish_document(bus, blobs, number, split="held_out")
    async with stopped_after(runtime(tmp_path, bus=bus, blobs=blobs)) as service:
        await freezer_of(service).run()
    (event,) = await published(bus, "benchmarks")
    assert isinstance(event, BenchmarkFrozen)
    assert (event.items, event.clusters) == (24, 12)
    frozen = find_frozen(blobs, DOMAIN)
    assert frozen is not None
    assert frozen.event == event
    assert json.loads(blobs.get(keys.benchmark_pointer_key(DOMAIN, 1)))["digest"] == event.digest


async def test_the_order_in_which_documents_arrive_changes_nothing(tmp_path: Path) -> None:
    digests = []
    for step in (1, -1):
        bus, blobs = MemoryBus(), MemoryBlobs()
        for number in range(30)[::step]:
            await publish_document(bus, blobs, number, split="held_out")
        async with stopped_after(runtime(tmp_path, bus=bus, blobs=blobs)) as service:
            await freezer_of(service).run()
        frozen = find_frozen(blobs, DOMAIN)
        assert frozen is not None
        digests.append(frozen.digest)
    assert digests[0] == digests[1]


async def test_what_must_not_be_trained_on_lies_beside_it(tmp_path: Path) -> None:
    blobs = MemoryBlobs()
    frozen = frozen_benchmark(blobs)
    manifest = manifests.read(blobs, frozen.manifest_key).manifest
    lines = list(read_json_lines(manifests.download_bytes(blobs, manifest.file("items.jsonl.zst"))))
    texts = [json.loads(line)["texts"] for line in lines]
    assert texts[:24] == [list(item.texts) for item in frozen.benchmark.items]
    assert texts[24:] == [list(of_item) for of_item in forbidden_texts()]


async def test_it_waits_and_says_what_is_missing(tmp_path: Path) -> None:
    bus, blobs = MemoryBus(), MemoryBlobs()
    async with stopped_after(runtime(tmp_path, bus=bus, blobs=blobs)) as service:
        freezing = asyncio.create_task(freezer_of(service).run())

        async def says(text: str) -> bool:
            return any(text in detail for detail in await status_details(bus))

        await until(lambda: says("no document was accepted yet"))
        for number in range(10):
            await publish_document(bus, blobs, number, split="held_out")
        await until(lambda: says("10 held-out documents give 10 of 24 items; publish more documents"))
        assert find_frozen(blobs, DOMAIN) is None
        for number in range(10, 24):
            await publish_document(bus, blobs, number, split="held_out")
        await freezing
    assert find_frozen(blobs, DOMAIN) is not None


async def test_what_was_forgotten_before_is_no_material(tmp_path: Path) -> None:
    bus, blobs = MemoryBus(), MemoryBlobs()
    keys_of = [await publish_document(bus, blobs, number, split="held_out") for number in range(30)]
    forgotten = [json.loads(blobs.get(key)) for key in keys_of[:3]]
    for document in forgotten:
        await bus.publish(
            DocumentForgotten(domain=DOMAIN, document_id=document["document_id"], actor="test", reason="recalled")
        )
    async with stopped_after(runtime(tmp_path, bus=bus, blobs=blobs)) as service:
        await freezer_of(service).run()
    frozen = find_frozen(blobs, DOMAIN)
    assert frozen is not None
    texts = {text for item in frozen.benchmark.items for text in item.texts}
    assert len(texts) == 24
    assert not texts & {document["text"] for document in forgotten}


async def test_it_waits_until_the_corpus_is_quiet(tmp_path: Path) -> None:
    bus, blobs = MemoryBus(), MemoryBlobs()
    for number in range(24):
        await publish_document(bus, blobs, number, split="held_out")
    restless = runtime(tmp_path, bus=bus, blobs=blobs)
    evaluator = restless.config.evaluator.model_copy(update={"corpus_quiet_s": 3600.0})
    restless.config = restless.config.model_copy(update={"evaluator": evaluator})
    async with stopped_after(restless) as service:
        freezing = asyncio.create_task(freezer_of(service).run())

        async def waiting() -> bool:
            return any("24 held out; more are coming in" in detail for detail in await status_details(bus))

        await until(waiting)
        assert find_frozen(blobs, DOMAIN) is None
        service.stop.set()
        await freezing
    assert await published(bus, "benchmarks") == []


async def test_training_documents_alone_are_no_material(tmp_path: Path) -> None:
    bus, blobs = MemoryBus(), MemoryBlobs()
    for number in range(30):
        await publish_document(bus, blobs, number, split="training")
    async with stopped_after(runtime(tmp_path, bus=bus, blobs=blobs)) as service:
        freezing = asyncio.create_task(freezer_of(service).run())

        async def waiting() -> bool:
            return any("item can be made from 0 held-out documents" in detail for detail in await status_details(bus))

        await until(waiting)
        service.stop.set()
        await freezing


async def test_evaluators_that_start_together_agree_on_one(tmp_path: Path) -> None:
    bus, blobs = MemoryBus(), MemoryBlobs()
    for number in range(30):
        await publish_document(bus, blobs, number, split="held_out")
    services = [runtime(tmp_path, bus=bus, blobs=blobs, instance=name) for name in ("a", "b", "c")]
    await asyncio.gather(*(freezer_of(service).run() for service in services))
    for service in services:
        await service.close()
    assert len(await published(bus, "benchmarks")) == 1


async def test_the_first_pointer_wins(tmp_path: Path) -> None:
    blobs = MemoryBlobs()
    first = frozen_benchmark(blobs, samples=24)
    other = first.benchmark.model_copy(update={"seed": 7})
    assert freeze(blobs, other).digest == first.digest


async def test_a_restarted_evaluator_adopts_and_announces_again(tmp_path: Path) -> None:
    bus, blobs = MemoryBus(), MemoryBlobs()
    frozen = frozen_benchmark(blobs)
    async with stopped_after(runtime(tmp_path, bus=bus, blobs=blobs)) as service:
        await freezer_of(service).run()
    assert await published(bus, "benchmarks") == [frozen.event]


async def test_an_unreachable_bus_is_waited_for(tmp_path: Path) -> None:
    bus, blobs = MemoryBus(), MemoryBlobs()
    frozen = frozen_benchmark(blobs)
    bus.available = False
    async with stopped_after(runtime(tmp_path, bus=bus, blobs=blobs)) as service:
        freezing = asyncio.create_task(freezer_of(service).run())
        await asyncio.sleep(0.05)
        assert not freezing.done()
        bus.available = True
        await freezing
    assert await published(bus, "benchmarks") == [frozen.event]


async def test_a_document_changed_in_the_store_stops_the_freezing(tmp_path: Path) -> None:
    bus, blobs = MemoryBus(), MemoryBlobs()
    for number in range(24):
        key = await publish_document(bus, blobs, number, split="held_out")
    blobs.put(key, blobs.get(key).replace(b"says", b"sings"))
    async with stopped_after(runtime(tmp_path, bus=bus, blobs=blobs)) as service:
        with pytest.raises(IntegrityError, match="changed in the store"):
            await freezer_of(service).run()
    assert find_frozen(blobs, DOMAIN) is None


@pytest.mark.parametrize("name", ["benchmark.json", "manifest.json"])
def test_a_frozen_benchmark_that_was_changed_is_refused(name: str) -> None:
    blobs = MemoryBlobs()
    frozen = frozen_benchmark(blobs)
    prefix = keys.benchmark_prefix(DOMAIN, frozen.digest)
    (key,) = [info.key for info in blobs.list(prefix) if info.key.endswith(name)]
    blobs.put(key, blobs.get(key).replace(b"1", b"2"))
    with pytest.raises(IntegrityError):
        find_frozen(blobs, DOMAIN)


def test_a_pointer_to_nothing_is_refused() -> None:
    blobs = MemoryBlobs()
    digest = hashlib.sha256(b"").hexdigest()
    pointer = {"digest": digest, "manifest_key": "gone", "manifest_sha256": digest}
    blobs.create(keys.benchmark_pointer_key(DOMAIN, 1), json.dumps(pointer).encode())
    with pytest.raises(IntegrityError, match="cannot be read"):
        find_frozen(blobs, DOMAIN)


def test_what_could_never_decide_is_not_fit_to_be_frozen() -> None:
    benchmark = frozen_benchmark(MemoryBlobs()).benchmark
    assert shortfall(benchmark, samples=24) is None
    assert "24 of 25 items" in str(shortfall(benchmark, samples=25))
    developing = [item.model_copy(update={"half": "development"}) for item in benchmark.items]
    assert "0 items in the confirmation half" in str(_short(benchmark, developing))
    confirming = [item.model_copy(update={"half": "confirmation"}) for item in benchmark.items]
    assert "0 items in the development half" in str(_short(benchmark, confirming))
    few = [item.model_copy(update={"half": "confirmation"}) for item in benchmark.half("development")[:9]]
    lopsided = [*few, *(item for item in benchmark.items if item.item_id not in {moved.item_id for moved in few})]
    assert "3 items in the development half, 4 are needed" in str(_short(benchmark, lopsided))
    crowded = [item.model_copy(update={"cluster": "one"}) for item in benchmark.items]
    assert "from 1 sources, 4 are needed; publish held-out documents of other sources" in str(
        _short(benchmark, crowded)
    )
    blind = [item.model_copy(update={"dimension": "accuracy"}) for item in benchmark.items]
    assert "coherence or knowledge" in str(_short(benchmark, blind))


def _short(benchmark: Benchmark, items: list[Item]) -> str | None:
    changed = benchmark.model_copy(update={"items": tuple(items)})
    return shortfall(changed, samples=24)
