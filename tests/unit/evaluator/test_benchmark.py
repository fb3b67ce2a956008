"""The frozen benchmark: quotas, halves, caps, worked examples, digest."""

from __future__ import annotations

from collections import Counter

import pytest

from jupiter.evaluator.benchmark import WORKED_EXAMPLES, Benchmark, BenchmarkTooSmallError, build_benchmark
from jupiter.evaluator.items import Corpus
from tests.unit.evaluator.corpora import make_corpus, make_document


def _built(samples: int = 100, seed: int = 0) -> Benchmark:
    return build_benchmark(make_corpus(), domain="toy", samples=samples, seed=seed)


def test_dimensions_get_their_share() -> None:
    counts = Counter(item.dimension for item in _built().items)
    assert counts == {"accuracy": 40, "coherence": 30, "knowledge": 30}


def test_halves_are_balanced_and_share_no_cluster() -> None:
    items = _built().items
    clusters = {half: {item.cluster for item in items if item.half == half} for half in ("development", "confirmation")}
    assert not clusters["development"] & clusters["confirmation"]
    assert 0.4 <= sum(item.half == "confirmation" for item in items) / len(items) <= 0.6


def test_worked_examples_are_never_scored() -> None:
    benchmark = _built()
    scored = {item.item_id for item in benchmark.items}
    for examples in benchmark.examples.values():
        assert len(examples) <= WORKED_EXAMPLES
        assert all(item.half == "development" and item.item_id not in scored for item in examples)


def test_the_digest_is_that_of_the_content() -> None:
    first = _built()
    assert first.digest == _built().digest == Benchmark.model_validate_json(first.model_dump_json()).digest
    assert first.digest != _built(seed=1).digest


def test_kinds_that_give_nothing_leave_their_share_to_others() -> None:
    corpus = make_corpus()
    without_prose = tuple(doc for doc in corpus.held_out if doc.kind != "text")
    counts = build_benchmark(Corpus(without_prose, corpus.training, None), domain="toy", samples=50, seed=0).counts()
    assert counts["coherence"] == {"generation_health": 15}
    assert "doctest_outcome" not in counts["accuracy"]
    assert sum(counts["accuracy"].values()) == 20


def test_no_group_dominates_a_kind() -> None:
    items = _built(samples=200).items
    for kind in {item.kind for item in items}:
        of_kind = [item.cluster for item in items if item.kind == kind]
        assert max(Counter(of_kind).values()) <= max(4, 0.12 * len(of_kind) + 1)


def test_a_dimension_without_items_is_refused_with_what_to_publish() -> None:
    lonely = Corpus((make_document("Too short."),), (), None)
    with pytest.raises(BenchmarkTooSmallError, match=r"no accuracy item .* publish held-out"):
        build_benchmark(lonely, domain="toy", samples=20, seed=0)


def test_an_item_that_two_documents_give_is_asked_once() -> None:
    corpus = make_corpus()
    twice = Corpus((*corpus.held_out, *corpus.held_out), corpus.training, None)
    ids = [item.item_id for item in build_benchmark(twice, domain="toy", samples=200, seed=0).items]
    assert len(ids) == len(set(ids))
