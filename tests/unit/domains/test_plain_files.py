"""A domain of a user's own: `jupiter new-domain`, plain files, nothing else. The cycle begins.

The files are the topics of Python's reference, written down as anybody's text files would lie there.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from pydoc_data.topics import topics

import pytest

from jupiter.blobs.memory import MemoryBlobs
from jupiter.chunks import chunk
from jupiter.cli import run
from jupiter.cli.document_files import read_documents
from jupiter.config import ClusterConfig, DomainConfig
from jupiter.config.loading import load_domain
from jupiter.controller.metronome import plan
from jupiter.controller.projection import Projection
from jupiter.curator.intake import document_from
from jupiter.evaluator.benchmark import DIMENSION_SHARE_MIN, DIMENSION_WEIGHTS, Benchmark, build_benchmark
from jupiter.evaluator.benchmarks import freeze, shortfall
from jupiter.evaluator.items import Corpus
from jupiter.evaluator.wiring import chosen_kinds
from jupiter.events import DocumentAccepted, GeneratorLoaded
from jupiter.generator.batches import plan as prompts
from jupiter.records import Document, PublishedDocument, canonical_json
from jupiter.reports import CLUSTERS_MIN, DIMENSIONS
from tests.unit.controller.cases import first_entry

NAME = "manuals"
FILES = 60
SAMPLES = 60
CONFIG = ClusterConfig.model_validate({"domain": NAME, "self_improvement": {"benchmark_samples": SAMPLES}})


@pytest.fixture
def domain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DomainConfig:
    """A new domain in an empty directory, its files beside it."""
    monkeypatch.chdir(tmp_path)
    assert run(["new-domain", NAME]) == 0
    Path("docs").mkdir()
    for topic in sorted(topics, key=lambda topic: -len(topics[topic]))[:FILES]:
        Path("docs", f"{topic}.txt").write_text(topics[topic])
    return load_domain(NAME)


def _documents() -> list[Document]:
    """Read the files as `jupiter publish docs/` does, and accept them as the curator does."""
    published = list(read_documents([Path("docs")], defaults={"split": "auto"}))
    assert len(published) == FILES
    assert all(isinstance(one, PublishedDocument) for one in published)
    held_out_fraction = CONFIG.curator.held_out_fraction
    return [
        document_from(canonical_json(one), domain=NAME, held_out_fraction=held_out_fraction)
        for one in published
        if isinstance(one, PublishedDocument)
    ]


def _benchmark(documents: list[Document], domain: DomainConfig) -> Benchmark:
    corpus = Corpus(
        held_out=tuple(one for one in documents if one.split == "held_out"),
        training=tuple(one for one in documents if one.split == "training"),
        run_session=None,
    )
    return build_benchmark(corpus, domain=NAME, samples=SAMPLES, seed=0, only_kinds=chosen_kinds(domain))


def test_sixty_documents_of_prose_measure_all_three_dimensions(domain: DomainConfig) -> None:
    documents = _documents()
    assert {document.kind for document in documents} == {"text"}
    assert len({document.group for document in documents}) == FILES
    benchmark = _benchmark(documents, domain)
    assert shortfall(benchmark, samples=SAMPLES) is None
    for half in ("development", "confirmation"):
        items = benchmark.half(half)
        assert {item.dimension for item in items} == set(DIMENSIONS)
        assert len({item.cluster for item in items}) >= CLUSTERS_MIN
    shares = Counter(item.dimension for item in benchmark.items)
    assert sum(shares.values()) == SAMPLES
    assert all(shares[name] >= DIMENSION_SHARE_MIN * SAMPLES * weight for name, weight in DIMENSION_WEIGHTS.items())
    assert {item.kind for item in benchmark.items if item.dimension == "accuracy"} == {"prose_fact"}


def test_plain_files_start_the_cycle_and_every_request_can_be_generated(domain: DomainConfig) -> None:
    documents = _documents()
    state = Projection(domain=NAME)
    for document in documents:
        state.apply(_accepted(document))
    state.apply(freeze(MemoryBlobs(), _benchmark(documents, domain)).event)
    live = first_entry(domain=NAME)
    state.apply(
        GeneratorLoaded(
            domain=NAME,
            version=1,
            ledger_sequence=live.sequence,
            instance="generator-1",
            manifest_sha256=live.manifest_sha256,
            seconds=1,
        )
    )

    planned = plan(state, live, CONFIG, domain)
    assert planned.waits_for == ()
    assert len(planned.requests) == CONFIG.controller.in_flight_requests_max
    known = {document.document_id: document for document in documents}
    for request in planned.requests:
        jobs, unusable = prompts(request, known, chunk_chars_max=CONFIG.curator.chunk_chars_max)
        assert unusable == []
        assert {job.item.task for job in jobs} == {mix.task for mix in domain.tasks}


def _accepted(document: Document) -> DocumentAccepted:
    return DocumentAccepted(
        domain=NAME,
        document_id=document.document_id,
        key=document.document_id,
        kind=document.kind,
        title=document.title,
        group=document.group,
        source=document.source,
        split=document.split,
        chars=len(document.text),
        chunks=len(chunk(document, CONFIG.curator.chunk_chars_max)),
    )
