"""The evaluator as a process on real NATS and S3, with the real benchmark, sandbox and scoring, and a tiny model."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path

import pytest

from jupiter import keys, manifests
from jupiter.blobs.s3 import S3Blobs
from jupiter.bus.jetstream import JetStreamBus
from jupiter.config import ClusterConfig
from jupiter.config.loading import settings_as_environment
from jupiter.config.sections import EvaluatorSection, SelfImprovementSection
from jupiter.domains.python_stdlib import published_documents
from jupiter.evaluator.benchmark import Benchmark, build_benchmark
from jupiter.evaluator.benchmarks import find_frozen, freeze
from jupiter.evaluator.items import Corpus
from jupiter.events import BenchmarkFrozen, CheckpointSaved, DocumentAccepted, EvaluationCompleted, Event
from jupiter.ledger import GENESIS_HASH, LedgerEntry
from jupiter.records import Document, canonical_json, digest_of
from jupiter.reports import EvaluationReport
from tests.servers import NatsServer, S3Server
from tests.tiny_model import make_tiny_model

pytestmark = [pytest.mark.connected, pytest.mark.slow, pytest.mark.timeout(300)]

SAMPLES = 40
MODULES = frozenset({"json", "textwrap", "math", "fractions", "statistics", "bisect", "heapq", "itertools", "difflib"})


@cache
def documents() -> tuple[Document, ...]:
    """Return real documents of some modules, and of the language reference."""
    chosen = []
    for published in published_documents():
        group = published.group or published.source
        if group.split(".")[0] in MODULES or published.kind == "text":
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


async def published(bus: JetStreamBus, channel: str, domain: str) -> list[Event]:
    return [entry.event async for entry in bus.read(f"{channel}.{domain}", follow=False)]


def store(blobs: S3Blobs, directory: Path, *, prefix: str, kind: str, domain: str) -> manifests.Committed:
    files = tuple(
        manifests.upload_file(blobs, prefix=prefix, name=f"model/{path.name}", path=path)
        for path in sorted(directory.iterdir())
    )
    work_id = digest_of(domain, prefix)
    return manifests.commit(blobs, prefix=prefix, kind=kind, domain=domain, work_id=work_id, files=files, details={})


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


def save_checkpoint(blobs: S3Blobs, domain: str, directory: Path) -> CheckpointSaved:
    prefix = keys.checkpoint_prefix(domain, "run1", 5)
    committed = store(blobs, directory, prefix=prefix, kind="checkpoint", domain=domain)
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


async def publish_documents(bus: JetStreamBus, blobs: S3Blobs, domain: str) -> None:
    for document in documents():
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
    assert len(report.items) == SAMPLES
    assert set(report.candidate_prompts) == {item.kind for item in frozen.benchmark.items}


@pytest.mark.parametrize("step", ["blobs", "manifest", "event", "ack"])
async def test_killed_after_any_step_nothing_is_lost_and_nothing_doubled(
    config: ClusterConfig, bus: JetStreamBus, blobs: S3Blobs, models: tuple[Path, Path], tmp_path: Path, step: str
) -> None:
    domain = config.domain
    freeze(blobs, benchmark().model_copy(update={"domain": domain}))
    register(blobs, domain, models[1])
    await bus.publish(save_checkpoint(blobs, domain, models[0]))
    async with evaluator(config, JUPITER_CRASH_AFTER=step, JUPITER_CRASH_MARKER=str(tmp_path / "died")) as process:
        async with asyncio.timeout(120):
            assert await process.wait() == -signal.SIGKILL
    committed_before = evaluations(blobs, domain)
    assert len(committed_before) == (0 if step == "blobs" else 1)
    async with evaluator(config):
        await first(bus, "evaluations", domain)
        async with asyncio.timeout(60):
            while await bus.backlog(f"checkpoints.{domain}", durable="evaluator"):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    assert len(await published(bus, "evaluations", domain)) == 1
    assert len(evaluations(blobs, domain)) == 1
    assert set(committed_before) <= set(evaluations(blobs, domain))
    assert await bus.dead_letters() == [] or all(domain not in letter.subject for letter in await bus.dead_letters())
