"""The evaluator as a process on real NATS and S3, with the real benchmark, sandbox and scoring, and a tiny model."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from jupiter import keys, manifests
from jupiter.blobs.s3 import S3Blobs
from jupiter.bus.jetstream import JetStreamBus
from jupiter.config import ClusterConfig
from jupiter.config.loading import settings_as_environment
from jupiter.config.sections import EvaluatorSection, SelfImprovementSection
from jupiter.contamination import find_count
from jupiter.domains.python_stdlib import published_documents
from jupiter.evaluator.benchmark import Benchmark, build_benchmark
from jupiter.evaluator.benchmarks import find_frozen, freeze
from jupiter.evaluator.items import Corpus
from jupiter.events import (
    BenchmarkFrozen,
    BenchmarkRenewalRequested,
    CheckpointSaved,
    ConfirmationCompleted,
    ConfirmationRequested,
    DocumentAccepted,
    EvaluationCompleted,
    Event,
)
from jupiter.ledger import GENESIS_HASH, LedgerEntry, entry_hash, read_ledger
from jupiter.records import Document, Sample, canonical_json, digest_of
from jupiter.reports import Confirmation, EvaluationReport
from jupiter.sample_files import write_parquet
from tests.servers import NatsServer, S3Server
from tests.tiny_model import make_tiny_model

pytestmark = [pytest.mark.connected, pytest.mark.slow, pytest.mark.timeout(300)]

SAMPLES = 40
MODULES = frozenset({"json", "textwrap", "math", "fractions", "statistics", "bisect", "heapq", "itertools", "difflib"})


LATER_MODULES = frozenset(
    {
        "shutil",
        "socket",
        "base64",
        "urllib",
        "subprocess",
        "codecs",
        "collections",
        "uuid",
        "secrets",
        "pickle",
        "zipfile",
    }
)
"""Of documents that come after the first benchmark."""


@cache
def documents(modules: frozenset[str] = MODULES) -> tuple[Document, ...]:
    """Return real documents of some modules, and of the language reference."""
    chosen = []
    for published in published_documents():
        group = published.group or published.source
        if group.split(".")[0] in modules or published.kind == "text":
            chosen.append(
                Document(
                    document_id=hashlib.sha256(published.text.encode()).hexdigest(),
                    domain="placeholder",
                    text=published.text,
                    source=published.source,
                    title=published.title,
                    kind=published.kind,
                    group=group,
                    split="training" if published.split == "auto" else published.split,
                )
            )
    return tuple(chosen)


@cache
def benchmark() -> Benchmark:
    """Return a benchmark made without the sandbox, for tests that are not about freezing."""
    corpus = Corpus(
        held_out=tuple(document for document in documents() if document.split == "held_out"),
        training=tuple(document for document in documents() if document.split == "training"),
        run_session=None,
    )
    return build_benchmark(corpus, domain="placeholder", samples=SAMPLES, seed=0)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Candidate and generator: two tiny models with different weights."""
    directory = tmp_path_factory.mktemp("models")
    return make_tiny_model(directory / "candidate", seed=1), make_tiny_model(directory / "base", seed=2)


@pytest.fixture
def config(domain: str, nats_server: NatsServer, blobs: S3Blobs, s3_server: S3Server, tmp_path: Path) -> ClusterConfig:
    return ClusterConfig(
        domain=domain,
        instance="evaluator",
        data_dir=tmp_path / "data",
        nats=nats_server.section(ack_wait_s=1.0),
        s3=s3_server.section(bucket=blobs.bucket),
        self_improvement=SelfImprovementSection(benchmark_samples=SAMPLES),
        evaluator=EvaluatorSection(corpus_quiet_s=0.5, dtype="float32", device="cpu"),
    )


@asynccontextmanager
async def evaluator(config: ClusterConfig, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the service; it is stopped as an operator stops it, unless it has died."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("JUPITER_")}
    domains = config.data_dir / "config" / "domains"
    domains.mkdir(parents=True, exist_ok=True)
    (domains / f"{config.domain}.yaml").write_text("description: A test.\ntasks: [{task: question_answer}]\n")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "jupiter.evaluator"),
        cwd=config.data_dir,
        env={**inherited, **settings_as_environment(config), "OMP_NUM_THREADS": "1", **environment},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            # A signal before its handler is in place ends the process as well.
            assert await asyncio.wait_for(process.wait(), 30) in (0, -signal.SIGTERM)


async def first(bus: JetStreamBus, channel: str, domain: str) -> Event:
    """Wait for the channel's first event."""
    async with asyncio.timeout(120):
        async for entry in bus.read(f"{channel}.{domain}"):
            return entry.event
    raise AssertionError


async def frozen_as(bus: JetStreamBus, domain: str, *, generation: int) -> None:
    """Wait until a benchmark of that generation was announced."""
    async with asyncio.timeout(120):
        async for entry in bus.read(f"benchmarks.{domain}"):
            if isinstance(entry.event, BenchmarkFrozen) and entry.event.generation == generation:
                return


async def published(bus: JetStreamBus, channel: str, domain: str) -> list[Event]:
    return [entry.event async for entry in bus.read(f"{channel}.{domain}", follow=False)]


def store(
    blobs: S3Blobs, directory: Path, *, prefix: str, kind: str, domain: str, details: Mapping[str, Any] | None = None
) -> manifests.Committed:
    files = tuple(
        manifests.upload_file(blobs, prefix=prefix, name=f"model/{path.name}", path=path)
        for path in sorted(directory.iterdir())
    )
    work_id = digest_of(domain, prefix)
    return manifests.commit(
        blobs, prefix=prefix, kind=kind, domain=domain, work_id=work_id, files=files, details=details or {}
    )


def register(blobs: S3Blobs, domain: str, directory: Path) -> None:
    """Make the model in `directory` generator version 1."""
    prefix = keys.generator_prefix(domain, 1)
    version = store(blobs, directory, prefix=prefix, kind="generator", domain=domain)
    entry = LedgerEntry(
        domain=domain,
        sequence=1,
        action="registered",
        version=1,
        previous_version=None,
        manifest_key=version.key,
        manifest_sha256=version.sha256,
        actor="test",
        reason="test",
        time="2026-11-22T20:00:00+00:00",
        previous_hash=GENESIS_HASH,
    )
    assert blobs.create(keys.ledger_key(domain, 1), canonical_json(entry))


def save_checkpoint(blobs: S3Blobs, domain: str, directory: Path, *, shard_ids: Sequence[str] = ()) -> CheckpointSaved:
    prefix = keys.checkpoint_prefix(domain, "run1", 5)
    details = {"shards": list(shard_ids)}
    committed = store(blobs, directory, prefix=prefix, kind="checkpoint", domain=domain, details=details)
    return CheckpointSaved(
        domain=domain,
        checkpoint_id=digest_of(domain, "run1", 5),
        run="run1",
        step=5,
        tokens_seen=100,
        loss=3.0,
        shard_sequence=1,
        manifest_key=committed.key,
        manifest_sha256=committed.sha256,
    )


async def publish_documents(
    bus: JetStreamBus, blobs: S3Blobs, domain: str, chosen: Iterable[Document] | None = None
) -> None:
    for document in documents() if chosen is None else chosen:
        key = keys.document_key(domain, document.document_id)
        blobs.create(key, canonical_json(document.model_copy(update={"domain": domain})))
        await bus.publish(
            DocumentAccepted(
                domain=domain,
                document_id=document.document_id,
                key=key,
                kind=document.kind,
                title=document.title,
                group=document.group,
                source=document.source,
                split=document.split,
                chars=len(document.text),
                chunks=1,
            )
        )


def evaluations(blobs: S3Blobs, domain: str) -> list[str]:
    return [info.key for info in blobs.list(f"evaluations/{domain}/") if info.key.endswith("manifest.json")]


async def test_documents_become_a_benchmark_and_a_checkpoint_an_evaluation(
    config: ClusterConfig, bus: JetStreamBus, blobs: S3Blobs, models: tuple[Path, Path]
) -> None:
    domain = config.domain
    await publish_documents(bus, blobs, domain)
    register(blobs, domain, models[1])
    async with evaluator(config):
        frozen_event = await first(bus, "benchmarks", domain)
        await bus.publish(save_checkpoint(blobs, domain, models[0]))
        event = await first(bus, "evaluations", domain)
    assert isinstance(frozen_event, BenchmarkFrozen)
    frozen = find_frozen(blobs, domain)
    assert frozen is not None
    assert frozen.event == frozen_event
    assert len(frozen.benchmark.items) == SAMPLES
    assert any(item.kind == "doctest_outcome" for item in frozen.benchmark.items), "the sandbox executed no example"
    assert isinstance(event, EvaluationCompleted)
    manifest = manifests.read(blobs, event.manifest_key, sha256=event.manifest_sha256).manifest
    report = EvaluationReport.model_validate_json(manifests.download_bytes(blobs, manifest.file("report.json")))
    assert report.benchmark_digest == frozen.digest
    assert {item.item_id for item in report.items} == {item.item_id for item in frozen.benchmark.half("development")}
    assert set(report.candidate_prompts) == {item.kind for item in frozen.benchmark.items}
    assert report.general is not None


def store_shard(blobs: S3Blobs, domain: str, texts: Iterable[str]) -> str:
    """Commit a shard of these texts, from before anybody counted."""
    samples = [
        Sample(
            sample_id=digest_of(text),
            origin="synthetic",
            instruction=None,
            response=text,
            document_id=digest_of("document"),
            task="explanation",
        )
        for text in texts
    ]
    shard_id = digest_of(domain, len(samples))
    prefix = keys.shard_prefix(domain, shard_id)
    file = manifests.upload_bytes(blobs, prefix=prefix, name="samples.parquet", data=write_parquet(samples))
    manifests.commit(blobs, prefix=prefix, kind="shard", domain=domain, work_id=shard_id, files=(file,), details={})
    return shard_id


async def test_a_benchmark_is_renewed_without_what_a_shard_holds_and_a_checkpoint_of_that_shard_is_judged_on_it(
    config: ClusterConfig, bus: JetStreamBus, blobs: S3Blobs, models: tuple[Path, Path]
) -> None:
    domain = config.domain
    used = freeze(blobs, benchmark().model_copy(update={"domain": domain}))
    register(blobs, domain, models[1])
    held_out = [one for one in documents(MODULES | LATER_MODULES) if one.split == "held_out"]
    await publish_documents(bus, blobs, domain, held_out)
    shard_id = store_shard(blobs, domain, (f"{one.title}: {one.text}" for one in held_out if one.group == "shutil"))
    await bus.publish(
        BenchmarkRenewalRequested(
            domain=domain, generation=2, documents=100, samples=SAMPLES, actor="test", reason="used up"
        )
    )
    async with evaluator(config):
        await frozen_as(bus, domain, generation=2)
        await bus.publish(save_checkpoint(blobs, domain, models[0], shard_ids=[shard_id]))
        event = await first(bus, "evaluations", domain)
    frozen = find_frozen(blobs, domain)
    assert frozen is not None
    assert frozen.generation == 2
    assert frozen.event in await published(bus, "benchmarks", domain)
    sealed = frozen.benchmark.half("confirmation")
    assert not {item.cluster for item in used.benchmark.half("confirmation")} & {item.cluster for item in sealed}
    assert isinstance(event, EvaluationCompleted)
    assert event.benchmark_digest == frozen.digest
    # What the evaluator has kept is what the controller adds up.
    counted = find_count(blobs, domain, shard_id, benchmark_digest=frozen.digest)
    assert counted is not None
    assert (counted.samples, dict(counted.items)) == (0, {})


def open_half(blobs: S3Blobs, domain: str, event: EvaluationCompleted) -> ConfirmationRequested:
    """Spend an opening for the evaluation in the ledger, as the controller does, and return the request."""
    ledger = read_ledger(blobs, domain)
    entry = ledger[-1].model_copy(
        update={
            "sequence": len(ledger) + 1,
            "action": "opened",
            "previous_version": 1,
            "evaluation_id": event.evaluation_id,
            "benchmark_digest": event.benchmark_digest,
            "opening": 1,
            "previous_hash": entry_hash(ledger[-1]),
        }
    )
    assert blobs.create(keys.ledger_key(domain, entry.sequence), canonical_json(entry))
    return ConfirmationRequested(
        domain=domain,
        evaluation_id=event.evaluation_id,
        checkpoint_id=event.checkpoint_id,
        opening=1,
        ledger_sequence=entry.sequence,
        report_manifest_key=event.manifest_key,
        report_manifest_sha256=event.manifest_sha256,
    )


async def drained(bus: JetStreamBus, domain: str, channel: str) -> None:
    async with asyncio.timeout(60):
        while await bus.backlog(f"{channel}.{domain}", durable="evaluator"):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def killed_after(step: str, config: ClusterConfig, marker: Path) -> None:
    """Run the service until it dies of that step."""
    async with evaluator(config, JUPITER_CRASH_AFTER=step, JUPITER_CRASH_MARKER=str(marker)) as process:
        async with asyncio.timeout(120):
            assert await process.wait() == -signal.SIGKILL


STEPS = ("blobs", "manifest", "event", "ack")


async def test_killed_after_every_step_of_a_confirmation_it_opens_the_sealed_half_once(
    config: ClusterConfig, bus: JetStreamBus, blobs: S3Blobs, models: tuple[Path, Path], tmp_path: Path
) -> None:
    domain = config.domain
    frozen = freeze(blobs, benchmark().model_copy(update={"domain": domain}))
    register(blobs, domain, models[1])
    await bus.publish(save_checkpoint(blobs, domain, models[0]))
    async with evaluator(config):
        event = await first(bus, "evaluations", domain)
        assert isinstance(event, EvaluationCompleted)
        await drained(bus, domain, "checkpoints")
    report_key = evaluations(blobs, domain)
    await bus.publish(open_half(blobs, domain, event))
    for step in STEPS:
        await killed_after(step, config, tmp_path / "died")
        committed = evaluations(blobs, domain)
        assert len(committed) == (1 if step == "blobs" else 2), step
        assert set(report_key) <= set(committed)
    async with evaluator(config):
        await drained(bus, domain, "confirmations")
    found = [event for event in await published(bus, "evaluations", domain) if isinstance(event, ConfirmationCompleted)]
    assert len(found) == 1
    assert evaluations(blobs, domain) == committed
    manifest = manifests.read(blobs, found[0].manifest_key, sha256=found[0].manifest_sha256).manifest
    confirmation = Confirmation.model_validate_json(manifests.download_bytes(blobs, manifest.file("confirmation.json")))
    sealed = {item.item_id for item in frozen.benchmark.half("confirmation")}
    assert {item.item_id for item in confirmation.items} == sealed
    assert [letter for letter in await bus.dead_letters(limit=1000) if domain in letter.subject] == []


async def test_killed_after_every_step_of_an_evaluation_nothing_is_lost_and_nothing_doubled(
    config: ClusterConfig, bus: JetStreamBus, blobs: S3Blobs, models: tuple[Path, Path], tmp_path: Path
) -> None:
    domain = config.domain
    freeze(blobs, benchmark().model_copy(update={"domain": domain}))
    register(blobs, domain, models[1])
    async with evaluator(config):  # hears its own announcement first: its end is a step too, and not the one meant
        await first(bus, "benchmarks", domain)
        await drained(bus, domain, "benchmarks")
    await bus.publish(save_checkpoint(blobs, domain, models[0]))
    for step in STEPS:
        await killed_after(step, config, tmp_path / "died")
        assert len(evaluations(blobs, domain)) == (0 if step == "blobs" else 1), step
        assert len(await published(bus, "evaluations", domain)) == (1 if step in ("event", "ack") else 0), step
    async with evaluator(config):
        await drained(bus, domain, "checkpoints")
    assert len(await published(bus, "evaluations", domain)) == 1
    assert len(evaluations(blobs, domain)) == 1
    assert all(domain not in letter.subject for letter in await bus.dead_letters(limit=1000))
