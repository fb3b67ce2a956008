"""The frozen benchmark: quotas, halves, caps, worked examples, digest."""

from __future__ import annotations

from collections import Counter

import pytest

from jupiter.evaluator.benchmark import WORKED_EXAMPLES, Benchmark, BenchmarkTooSmallError, build_benchmark
from jupiter.evaluator.items import Corpus
from jupiter.evaluator.items.item import half_of
from tests.unit.evaluator.corpora import make_corpus, make_document


def _built(samples: int = 100, seed: int = 0) -> Benchmark:
    return build_benchmark(make_corpus(), domain="toy", samples=samples, seed=seed)


def test_dimensions_get_their_share() -> None:
    counts = Counter(item.dimension for item in _built().items)
    assert counts == {"accuracy": 40, "coherence": 30, "knowledge": 30}


@pytest.mark.parametrize("samples", [28, 57, 93, 128])
def test_a_benchmark_has_as_many_items_as_asked_for(samples: int) -> None:
    assert len(_built(samples).items) == samples


def test_three_items_in_four_are_sealed_and_no_cluster_is_in_both_halves() -> None:
    items = _built().items
    clusters = {half: {item.cluster for item in items if item.half == half} for half in ("development", "confirmation")}
    assert not clusters["development"] & clusters["confirmation"]
    assert 0.65 <= sum(item.half == "confirmation" for item in items) / len(items) <= 0.8


@pytest.mark.parametrize("samples", [60, 100, 140])
def test_the_halves_mix_the_kinds_alike(samples: int) -> None:
    counts = Counter((item.kind, item.half) for item in _built(samples).items)
    for kind in {kind for kind, _ in counts}:
        development, sealed = counts[kind, "development"], counts[kind, "confirmation"]
        assert abs(development - sealed / 3) <= 1, (kind, development, sealed)


def test_a_kind_that_one_half_has_too_little_of_is_asked_less_in_both() -> None:
    """As long as the others can make up for it; else the half that has more gives more."""
    corpus = make_corpus()
    sealed = [doc for doc in corpus.held_out if doc.kind == "example" and half_of(doc.group) == "confirmation"]
    held_out = tuple(doc for doc in corpus.held_out if doc not in sealed[1:])
    scarce = Corpus(held_out, corpus.training, corpus.run_session)
    few = _examples_of(build_benchmark(scarce, domain="toy", samples=60, seed=0))
    assert 0 < few["confirmation"] <= 4
    assert few["development"] <= 2
    everything = _examples_of(build_benchmark(scarce, domain="toy", samples=10_000, seed=0))
    assert everything["development"] > everything["confirmation"]


def _examples_of(benchmark: Benchmark) -> Counter[str]:
    return Counter(item.half for item in benchmark.items if item.kind == "doctest_outcome")


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


def test_the_refusal_says_what_was_there_what_was_tried_and_what_the_domain_leaves_out() -> None:
    corpus = make_corpus()
    prose = Corpus(tuple(doc for doc in corpus.held_out if doc.kind == "text"), (), None)
    with pytest.raises(BenchmarkTooSmallError) as caught:
        build_benchmark(prose, domain="toy", samples=20, seed=0, only_kinds=("topic_fact", "term_cloze"))
    assert "24 held-out documents (24 text) by topic_fact;" in str(caught.value)
    assert "or let benchmark_kinds of the domain name container_fact or doctest_outcome or prose_fact too" in str(
        caught.value
    )
    with pytest.raises(BenchmarkTooSmallError, match=r"no coherence item .* by no kind of item;"):
        build_benchmark(corpus, domain="toy", samples=20, seed=0, only_kinds=("topic_fact", "term_cloze"))
    with pytest.raises(BenchmarkTooSmallError) as caught:
        build_benchmark(Corpus((), (), None), domain="toy", samples=20, seed=0)
    assert "0 held-out documents (none)" in str(caught.value)
    assert "benchmark_kinds" not in str(caught.value), "every kind was tried"


def test_an_item_that_two_documents_give_is_asked_once() -> None:
    corpus = make_corpus()
    twice = Corpus((*corpus.held_out, *corpus.held_out), corpus.training, None)
    ids = [item.item_id for item in build_benchmark(twice, domain="toy", samples=200, seed=0).items]
    assert len(ids) == len(set(ids))


def test_items_that_are_excluded_are_neither_asked_nor_shown_and_others_take_their_place() -> None:
    whole = _built()
    shown = {item.item_id for examples in whole.examples.values() for item in examples}
    excluded = {item.item_id for item in whole.items[::3]} | shown
    without = build_benchmark(make_corpus(), domain="toy", samples=100, seed=0, excluded=excluded)
    made = {item.item_id for items in (without.items, *without.examples.values()) for item in items}
    assert not made & excluded
    assert len(without.items) == len(whole.items)
    assert build_benchmark(make_corpus(), domain="toy", samples=100, seed=0, excluded=()).digest == whole.digest
