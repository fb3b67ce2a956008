"""The stage of the evaluator's tests: a small corpus, a small benchmark, stored models, a fake examiner.

Owns: what the tests of this folder share. Does not know: what each of them shows.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from jupiter import keys, manifests
from jupiter.blobs.memory import MemoryBlobs
from jupiter.bus.memory import MemoryBus
from jupiter.compute import ComputeLease
from jupiter.config import ClusterConfig
from jupiter.config.sections import EvaluatorSection, LocalSection, SelfImprovementSection
from jupiter.deliveries import Pauses
from jupiter.evaluator.benchmark import Benchmark, BenchmarkTooSmallError
from jupiter.evaluator.benchmarks import FrozenBenchmark, freeze
from jupiter.evaluator.building import BuildBenchmark, Builder
from jupiter.evaluator.contestants import Contestants
from jupiter.evaluator.counting import Counting
from jupiter.evaluator.deps import Deps
from jupiter.evaluator.examination import Examined, Paper
from jupiter.evaluator.freezing import Freezer
from jupiter.evaluator.general import general_items
from jupiter.evaluator.handlers import BENCHMARK_HANDLERS, CHECKPOINT_HANDLERS, CONFIRMATION_HANDLERS
from jupiter.evaluator.health import band_of
from jupiter.evaluator.items import Corpus, Item, item_kinds
from jupiter.evaluator.judge import Judge
from jupiter.evaluator.scoring import ItemScore
from jupiter.events import (
    CheckpointSaved,
    ConfirmationRequested,
    DocumentAccepted,
    EvaluationCompleted,
    Event,
    ServiceStatus,
)
from jupiter.ledger import GENESIS_HASH, LedgerEntry, current, entry_hash, openings, read_ledger
from jupiter.manifests import Committed
from jupiter.records import Document, canonical_json, digest_of
from jupiter.service import Runtime, ServiceParts, Subscription

DOMAIN = "domain_a"
SHORT = Pauses(backoff_s=(0, 0, 0, 0), unavailable_s=0, drain_s=5, status_s=0.01)
DIMENSIONS: tuple[Literal["accuracy", "coherence", "knowledge"], ...] = ("accuracy", "coherence", "knowledge")
HALVES: tuple[Literal["development", "confirmation"], ...] = ("development", "confirmation")


def config(data_dir: Path, *, samples: int = 24, quiet_s: float = 0.0) -> ClusterConfig:
    return ClusterConfig(
        domain=DOMAIN,
        data_dir=data_dir,
        self_improvement=SelfImprovementSection(benchmark_samples=samples),
        evaluator=EvaluatorSection(corpus_quiet_s=quiet_s),
        local=LocalSection(compute_slots=1, turn_s_max=1),
    )


def runtime(
    data_dir: Path, *, bus: MemoryBus, blobs: MemoryBlobs, instance: str = "test", samples: int = 24
) -> Runtime:
    return Runtime.in_memory(
        name="evaluator",
        config=config(data_dir, samples=samples),
        bus=bus,
        blobs=blobs,
        instance=instance,
        pauses=SHORT,
    )


async def until(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while True:
            answer = condition()
            if answer if isinstance(answer, bool) else await answer:
                return
            await asyncio.sleep(0.005)


async def published(bus: MemoryBus, channel: str) -> list[Event]:
    return [entry.event async for entry in bus.read(f"{channel}.{DOMAIN}", follow=False)]


async def statuses(bus: MemoryBus) -> list[ServiceStatus]:
    events = [entry.event async for entry in bus.read(f"status.{DOMAIN}.>", follow=False)]
    return [event for event in events if isinstance(event, ServiceStatus)]


async def status_details(bus: MemoryBus) -> list[str]:
    return [status.detail for status in await statuses(bus)]


async def publish_document(
    bus: MemoryBus,
    blobs: MemoryBlobs,
    number: int,
    *,
    split: Literal["training", "held_out"],
    groups: str = "group",
) -> str:
    """Store and announce a document as the curator does; return its key."""
    text = f"Document {number} says something about subject {number}."
    document = Document(
        document_id=hashlib.sha256(text.encode()).hexdigest(),
        domain=DOMAIN,
        text=text,
        source=f"test:{number}",
        title=None,
        kind="text",
        group=f"{groups}{number % 12}",
        split=split,
    )
    key = keys.document_key(DOMAIN, document.document_id)
    blobs.create(key, canonical_json(document))
    event = DocumentAccepted(
        domain=DOMAIN,
        document_id=document.document_id,
        key=key,
        kind="text",
        group=document.group,
        source=document.source,
        split=split,
        chars=len(text),
        chunks=1,
    )
    await bus.publish(event)
    return key


KINDS = {"accuracy": "topic_fact", "coherence": "generation_health", "knowledge": "entry_choice"}
"""One kind per dimension, each with settings to choose from."""


def make_benchmark(
    corpus: Corpus, *, domain: str, samples: int, seed: int, excluded: Collection[str] = ()
) -> Benchmark:
    """Make one item per held-out document, dimensions and halves in turn."""
    if not corpus.held_out:
        raise BenchmarkTooSmallError("no accuracy item can be made from 0 held-out documents")
    items = tuple(
        Item(
            item_id=f"item-{number:03d}",
            kind=KINDS[DIMENSIONS[number % 3]],
            dimension=DIMENSIONS[number % 3],
            cluster=document.group,
            half=HALVES[number // 3 % 2],
            fields={"title": document.text, "text": document.text},
            answer="yes",
            choices=("yes", "no"),
            texts=(document.text,),
        )
        for number, document in enumerate(corpus.held_out[:samples])
    )
    band = band_of([document.text for document in corpus.held_out])
    return Benchmark(domain=domain, seed=seed, items=items, examples={}, band=band)


def freezer_of(runtime: Runtime) -> Freezer:
    return Freezer(runtime=runtime, builder=builder_of(runtime), look_s=0.005)


def builder_of(runtime: Runtime, items: BuildBenchmark = make_benchmark) -> Builder:
    return Builder(runtime=runtime, items=items, run_sessions=lambda _documents, _progress: None)


def frozen_benchmark(blobs: MemoryBlobs, *, samples: int = 24) -> FrozenBenchmark:
    """Freeze a benchmark without waiting for documents."""
    documents = tuple(
        Document(
            document_id=digest_of(number),
            domain=DOMAIN,
            text=f"Held-out text number {number} about things.",
            source="test",
            title=None,
            kind="text",
            group=f"group{number % 12}",
            split="held_out",
        )
        for number in range(samples)
    )
    corpus = Corpus(held_out=documents, training=(), run_session=None)
    return freeze(blobs, make_benchmark(corpus, domain=DOMAIN, samples=samples, seed=0))


def store_model(blobs: MemoryBlobs, name: str, *, kind: str, prefix: str, folder: str = "model/") -> Committed:
    """Commit a "model" whose weights say its name, as checkpoint or generator version."""
    files = tuple(
        manifests.upload_bytes(blobs, prefix=prefix, name=f"{folder}{file}", data=data)
        for file, data in (("config.json", b"{}"), ("model.safetensors", name.encode()))
    )
    if kind == "checkpoint":
        state = manifests.upload_bytes(blobs, prefix=prefix, name="training_state.safetensors", data=b"large")
        files = (*files, state)
    return manifests.commit(
        blobs, prefix=prefix, kind=kind, domain=DOMAIN, work_id=digest_of(name), files=files, details={}
    )


def store_checkpoint(blobs: MemoryBlobs, name: str = "candidate", *, step: int = 10) -> CheckpointSaved:
    committed = store_model(blobs, name, kind="checkpoint", prefix=keys.checkpoint_prefix(DOMAIN, "run1", step))
    return CheckpointSaved(
        domain=DOMAIN,
        checkpoint_id=digest_of(DOMAIN, "run1", step),
        run="run1",
        step=step,
        tokens_seen=1000,
        loss=2.0,
        shard_sequence=1,
        manifest_key=committed.key,
        manifest_sha256=committed.sha256,
    )


def promote(blobs: MemoryBlobs, name: str, *, version: int, previous: LedgerEntry | None = None) -> LedgerEntry:
    """Store a generator version and append the ledger entry that makes it current."""
    folder = "" if version == 1 else "model/"
    prefix = keys.generator_prefix(DOMAIN, version)
    committed = store_model(blobs, name, kind="generator", prefix=prefix, folder=folder)
    entry = LedgerEntry(
        domain=DOMAIN,
        sequence=previous.sequence + 1 if previous else 1,
        action="promoted" if previous else "registered",
        version=version,
        previous_version=previous.version if previous else None,
        manifest_key=committed.key,
        manifest_sha256=committed.sha256,
        actor="test",
        reason="test",
        time="2026-11-22T20:00:00+00:00",
        previous_hash=entry_hash(previous) if previous else GENESIS_HASH,
    )
    assert blobs.create(keys.ledger_key(DOMAIN, entry.sequence), canonical_json(entry))
    return entry


def open_half(blobs: MemoryBlobs, event: EvaluationCompleted, **changes: object) -> ConfirmationRequested:
    """Spend an opening in the ledger for an evaluation, as the controller does, and return the request."""
    ledger = read_ledger(blobs, DOMAIN)
    live = current(ledger)
    assert live is not None
    entry = LedgerEntry(
        domain=DOMAIN,
        sequence=len(ledger) + 1,
        action="opened",
        version=live.version,
        previous_version=live.version,
        evaluation_id=event.evaluation_id,
        manifest_key=live.manifest_key,
        manifest_sha256=live.manifest_sha256,
        actor="test",
        reason="test",
        time="2026-11-22T21:00:00+00:00",
        previous_hash=entry_hash(ledger[-1]),
        benchmark_digest=event.benchmark_digest,
        opening=1 + len(openings(ledger, version=live.version)),
    )
    assert blobs.create(keys.ledger_key(DOMAIN, entry.sequence), canonical_json(entry))
    request = ConfirmationRequested(
        domain=DOMAIN,
        evaluation_id=event.evaluation_id,
        checkpoint_id=event.checkpoint_id,
        opening=entry.opening or 0,
        ledger_sequence=entry.sequence,
        report_manifest_key=event.manifest_key,
        report_manifest_sha256=event.manifest_sha256,
    )
    return request.model_copy(update=changes)


@dataclass
class FakeExaminer:
    """Scores by the model's name as its weights say it; a test may make it fail or wait."""

    skill: Mapping[str, float] = field(default_factory=lambda: {"candidate": 0.75, "base": 0.25})
    prompts: Mapping[str, int] = field(default_factory=lambda: {"candidate": 1, "base": 0})
    """Model to which of each kind's settings suits it best."""
    examined: list[str] = field(default_factory=list)
    papers: list[Paper] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)
    forget: str | None = None
    """An item id that gets no score."""
    hold: threading.Event | None = None
    """Set when the examination may go on."""
    started: threading.Event = field(default_factory=threading.Event)
    meanwhile: Callable[[], None] | None = None

    def answers(self, paper: Paper) -> int:
        return len(paper.items)

    def examine(self, directory: Path, paper: Paper, progress: Callable[[int], None]) -> Examined:
        name = (directory / "model.safetensors").read_text()
        assert not list(directory.glob("training_state*"))
        self.examined.append(name)
        self.papers.append(paper)
        self.started.set()
        if self.meanwhile is not None:
            self.meanwhile()
        while self.hold is not None and not self.hold.wait(0.005):
            progress(0)
        if self.failures:
            raise self.failures.pop(0)
        chosen = {kind: item_kinds()[kind].settings[self.prompts.get(name, 0)] for kind in KINDS.values()}
        return Examined(
            prompts=paper.prompts or chosen,
            scores=self._scores(name, paper, progress),
            seconds=0.1,
            general={item.item_id: 1.0 for item in general_items()} if paper.general else {},
        )

    def _scores(self, name: str, paper: Paper, progress: Callable[[int], None]) -> dict[str, ItemScore]:
        scores = {}
        for item in paper.items:
            progress(1)
            right = (int(item.item_id.removeprefix("item-")) * 0.618) % 1 < self.skill[name]
            answer = ANSWERS[right] if item.kind == "generation_health" else "yes" if right else "no"
            scores[item.item_id] = ItemScore(
                item_id=item.item_id, score=float(right), answer=answer, log_probability=-1.0
            )
        if self.forget is not None:
            scores.pop(self.forget, None)
        return scores


ANSWERS = {
    True: "A pump moves water from a low place to a high one. It needs a motor and a valve.",
    False: "A pump is a pump is a pump is a pump is a pump is a pump is a pump is a pump.",
}


def deps_of(
    runtime: Runtime, examiner: FakeExaminer, *, judge: Judge | None = None, items: BuildBenchmark = make_benchmark
) -> Deps:
    return Deps(
        runtime=runtime,
        contestants=Contestants(runtime.config.data_dir / "evaluator"),
        examiner=examiner,
        lease=ComputeLease.of(runtime.config),
        builder=builder_of(runtime, items),
        counting=Counting(runtime.blobs, runtime.domain, threshold=0.85),
        judge=judge,
    )


def parts_of(deps: Deps) -> ServiceParts[Deps]:
    checkpoints = Subscription(channel="checkpoints", durable="evaluator", handlers=CHECKPOINT_HANDLERS)
    confirmations = Subscription(channel="confirmations", durable="evaluator", handlers=CONFIRMATION_HANDLERS)
    renewals = Subscription(channel="benchmarks", durable="evaluator", handlers=BENCHMARK_HANDLERS)
    return ServiceParts(deps=deps, subscriptions=[checkpoints, confirmations, renewals])


@asynccontextmanager
async def stopped_after(runtime: Runtime) -> AsyncIterator[Runtime]:
    """Let background work of a test end with the test."""
    try:
        yield runtime
    finally:
        runtime.stop.set()
        await runtime.close()
