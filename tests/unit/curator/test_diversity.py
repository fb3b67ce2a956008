"""The figures of a shard beside the real data's own, and what the curator does while an alarm is open."""

from __future__ import annotations

import random
import statistics
from collections import Counter
from collections.abc import Sequence

import pytest

from jupiter import manifests
from jupiter.blobs.memory import MemoryBlobs
from jupiter.bus.memory import MemoryBus
from jupiter.curator import diversity
from jupiter.curator.alarms import Alarms
from jupiter.curator.candidate import Candidate
from jupiter.curator.corpus import Corpus
from jupiter.curator.diversity import FIGURES, coverage, measure, repeats, variety
from jupiter.curator.handlers import Deps, curate_batch
from jupiter.curator.pipeline import candidates_of
from jupiter.events import DiversityAlarmCleared, DiversityAlarmRaised, ShardCurated
from jupiter.records import Document, digest_of
from tests.unit.curator.material import (
    DOMAIN,
    commit_batch,
    corpus,
    deps_for,
    document,
    freeze_benchmark,
    register_generator,
    sample,
)
from tests.unit.curator.test_handlers import ANSWERS, publish, world

WORDS = [
    f"{first}{middle}{last}" for first in "bdfgklmn" for middle in ("ara", "ole", "ini", "eku") for last in "prstvxz"
]
COMMON = WORDS[:40]


def passage(draw: random.Random, number: int, words: int = 24) -> str:
    """A passage of mostly common words, some of the whole vocabulary, and three that stand nowhere else."""
    own = [f"{letter}{number:04d}" for letter in "uvw"]
    drawn = [draw.choice(COMMON if draw.random() < 0.6 else WORDS) for _ in range(words - len(own))]
    return " ".join([*drawn, *own])


def documents(count: int = 120, seed: int = 0) -> list[Document]:
    draw = random.Random(seed)
    return [document(passage(draw, number), title=f"pkg.name{number}") for number in range(count)]


def retold(chosen: Sequence[Document], known: Corpus, *, kept: float = 1.0, seed: int = 0) -> list[Candidate]:
    """Each document told again in its own words, of which a share is kept."""
    draw = random.Random(seed)
    made = []
    for number, one in enumerate(chosen):
        words = [word for word in one.text.split() if draw.random() < kept] or ["nothing"]
        draw.shuffle(words)
        made.append(
            sample(" ".join(words), f"What is {one.title}?", document_id=one.document_id, seed=1_000 * seed + number)
        )
    return candidates_of(made, known)


def test_variety_falls_with_repetition_and_coverage_looks_at_rare_words() -> None:
    varied, same = variety(["alpha beta gamma", "delta epsilon zeta"]), variety(["alpha beta gamma"] * 9)
    assert varied["distinct_1"] == 1
    assert same["distinct_1"] < 0.2
    assert same["compression_ratio"] > varied["compression_ratio"]
    assert variety([])["distinct_4"] == 0
    vocabulary = Counter({"alpha": 1, "beta": 30, "gamma": 30})
    assert coverage([("beta is here", "alpha beta gamma")], vocabulary) == {"once": 0.0, "20_or_more": 0.5}


def test_texts_drawn_from_the_real_data_lie_within_its_own_resampling() -> None:
    everything = documents(240)
    known = corpus(*everything)
    measured = measure(retold(everything[:40], known), known, seed="shard")
    for name in ("distinct_1", "compression_ratio", "words_mean"):
        assert abs(measured.synthetic[name] - measured.real[name]) < 4 * measured.real_sd[name] + 0.01, name
    assert measured.coverage["once"] == 1.0


def test_the_resampling_sd_is_the_spread_of_real_samples_of_that_size() -> None:
    """Whole shards of real text differ from one another by what one shard's resampling says."""
    everything = documents(600)
    known = corpus(*everything)
    shards = [measure(retold(everything[at : at + 30], known), known, seed=f"shard {at}") for at in range(0, 600, 30)]
    for name in ("distinct_1", "compression_ratio"):
        between = statistics.stdev(one.synthetic[name] for one in shards)
        said = statistics.fmean(one.real_sd[name] for one in shards)
        assert 0.6 < said / between < 1.7, name


def test_the_resampling_sd_of_coverage_is_the_spread_of_shards_that_keep_half_of_their_words() -> None:
    everything = documents(600)
    known = corpus(*everything)
    shards = [
        measure(retold(everything[at : at + 30], known, kept=0.5, seed=at), known, seed=f"shard {at}")
        for at in range(0, 600, 30)
    ]
    between = statistics.stdev(one.coverage["once"] for one in shards)
    said = statistics.fmean(one.coverage_sd["once"] for one in shards)
    assert 0.6 < said / between < 1.7
    assert 0.4 < statistics.fmean(one.coverage["once"] for one in shards) < 0.6


def test_figures_follow_from_the_seed_and_are_few() -> None:
    everything = documents()
    known = corpus(*everything)
    candidates = retold(everything[:20], known)
    first, again = (measure(candidates, known, seed="one").flat() for _ in range(2))
    assert first == again
    assert first != measure(candidates, known, seed="two").flat()
    assert len(first) <= 33
    assert {name.split(".", 1)[0] for name in first} == {
        *("synthetic", "real", "real_sd", "coverage", "coverage_sd"),
        "words",
    }


def test_the_same_few_words_over_and_over_are_far_from_the_real_data() -> None:
    everything = documents()
    known = corpus(*everything)
    draw = random.Random(1)
    dull = [
        sample(" ".join(draw.choice(COMMON[:6]) for _ in range(24)), document_id=one.document_id, seed=number)
        for number, one in enumerate(everything[:30])
    ]
    measured = measure(candidates_of(dull, known), known, seed="dull")
    for name in ("distinct_1", "distinct_2"):
        assert measured.synthetic[name] < measured.real[name] - 5 * measured.real_sd[name], name
    assert measured.synthetic["compression_ratio"] > measured.real["compression_ratio"]
    assert measured.synthetic["self_similarity"] > measured.real["self_similarity"]
    assert measured.coverage["once"] == 0


def test_a_shard_larger_than_half_of_the_real_data_is_compared_at_half_its_size() -> None:
    few = documents(10)
    known = corpus(*few)
    real_words = sum(
        one.words for one in known.real.values() if one.sample.instruction and "What is" in one.sample.instruction
    )
    candidates = [candidate for seed in range(3) for candidate in retold(few, known, seed=seed)]
    measured = measure(candidates, known, seed="many")
    assert 0 < measured.words <= real_words // 2
    assert all(measured.real_sd[name] > 0 for name in ("distinct_1", "compression_ratio"))
    assert set(measured.synthetic) == set(FIGURES)


def test_too_few_words_have_no_figures() -> None:
    everything = documents()
    known = corpus(*everything)
    assert measure([], known, seed="none").flat() == {"words": 0.0}
    one = measure(retold(everything[:1], known), known, seed="one")
    assert one.words < diversity.WORDS_MIN
    assert (one.synthetic, one.coverage) == ({}, {})


def test_repeats_are_counted_within_the_batch_and_before_any_filter() -> None:
    everything = documents()
    known = corpus(*everything)
    different = retold(everything[:8], known)
    assert repeats(different, threshold=0.85) == 0
    same = [sample("the very same words are said again and again", seed=number) for number in range(8)]
    assert repeats(candidates_of(same, known), threshold=0.85) == pytest.approx(7 / 8)
    assert repeats([], threshold=0.85) is None


def raised(shard_id: str = digest_of("shard")) -> DiversityAlarmRaised:
    return DiversityAlarmRaised(domain=DOMAIN, shard_id=shard_id, generator_version=1, alarms=("distinct_2 …",))


def cleared() -> DiversityAlarmCleared:
    return DiversityAlarmCleared(domain=DOMAIN, shard_id=digest_of("later"), generator_version=1)


def test_an_alarm_raises_the_real_share_and_never_lowers_it() -> None:
    alarms = Alarms()
    assert alarms.real_ratio(0.35, in_alarm=0.40) == 0.35
    alarms.apply(raised())
    assert alarms.real_ratio(0.35, in_alarm=0.40) == 0.40
    assert alarms.real_ratio(0.40, in_alarm=0.36) == 0.40
    alarms.apply(cleared())
    assert alarms.real_ratio(0.35, in_alarm=0.40) == 0.35


async def curated(deps: Deps, sequence: int, answers: Sequence[str]) -> tuple[ShardCurated, dict[str, object]]:
    blobs = deps.runtime.blobs
    batch = commit_batch(blobs, [sample(answer, seed=sequence) for answer in answers], sequence=sequence)
    (event,) = await curate_batch(batch, deps)
    assert isinstance(event, ShardCurated)
    await deps.runtime.bus.publish(event)
    details = manifests.read(blobs, event.manifest_key, sha256=event.manifest_sha256).manifest.details
    return event, dict(details)


def gauge(deps: Deps, name: str) -> float | None:
    return deps.runtime.telemetry.registry.get_sample_value(name)


async def test_while_an_alarm_is_open_shards_hold_more_real_data_and_say_why() -> None:
    bus, blobs = MemoryBus(), MemoryBlobs()
    deps = await world(bus, blobs, documents=120)
    before, details = await curated(deps, 1, ANSWERS[:1])
    assert (details["real_ratio_target"], details["alarm"], details["alarms_sequence"]) == (0.35, None, 0)
    assert gauge(deps, "jupiter_curator_diversity_alarm") == 0

    await bus.publish(raised())
    during, details = await curated(deps, 2, ANSWERS[1:2])
    assert (details["real_ratio_target"], details["alarm"]) == (0.40, raised().shard_id)
    assert during.real_tokens / during.tokens > before.real_tokens / before.tokens
    assert during.real_tokens / during.tokens <= 0.40
    assert gauge(deps, "jupiter_curator_diversity_alarm") == 1
    assert gauge(deps, "jupiter_curator_real_ratio_target") == 0.40

    await bus.publish(cleared())
    _, details = await curated(deps, 3, ANSWERS[2:3])
    assert (details["real_ratio_target"], details["alarm"]) == (0.35, None)
    assert gauge(deps, "jupiter_curator_diversity_alarm") == 0


async def test_a_batch_delivered_again_after_the_alarm_gives_the_shard_that_was_mixed_under_it() -> None:
    bus, blobs = MemoryBus(), MemoryBlobs()
    deps = await world(bus, blobs)
    await bus.publish(raised())
    batch = commit_batch(blobs, list(map(sample, ANSWERS)))
    first = await curate_batch(batch, deps)
    await bus.publish(cleared())
    again = await curate_batch(batch, deps_for(bus, blobs))
    assert again == first


async def test_a_curator_that_starts_while_an_alarm_is_open_knows_it() -> None:
    bus, blobs = MemoryBus(), MemoryBlobs()
    register_generator(blobs)
    freeze_benchmark(blobs)
    await bus.publish(raised())
    await bus.publish(raised(digest_of("another domain's")).model_copy(update={"domain": "elsewhere"}))
    deps = deps_for(bus, blobs)
    await publish(deps, "A manual of forty words that tells the story of how a curator starts while an alarm is open.")
    _, details = await curated(deps, 1, ANSWERS)
    assert (details["real_ratio_target"], details["alarm"]) == (0.40, raised().shard_id)
