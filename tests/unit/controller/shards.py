"""Shards with the figures of the base model on the demo's documents, their ups and downs included.

Measured on 1,380 completions of SmolLM2-135M in batches of 128 (64 accepted, 900 words): mean of synthetic and of real
text, the real figure's resampling SD, and how much whole shards differed.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from jupiter.events import ShardCurated
from jupiter.records import digest_of

DOMAIN = "testing"
# Name -> (synthetic, real, real_sd, spread between shards)
TEXT_FIGURES: Mapping[str, tuple[float, float, float, float]] = {
    "distinct_1": (0.407, 0.467, 0.0166, 0.0150),
    "distinct_2": (0.769, 0.823, 0.0163, 0.0183),
    "distinct_4": (0.983, 0.990, 0.0078, 0.0056),
    "compression_ratio": (2.579, 2.471, 0.0520, 0.0432),
    "self_similarity": (0.152, 0.124, 0.0145, 0.0092),
    "words_mean": (13.45, 14.71, 0.795, 0.467),
}
# Name -> (share, resampling SD, spread between shards)
COVERAGE: Mapping[str, tuple[float, float, float]] = {"once": (0.476, 0.071, 0.081), "2_to_4": (0.61, 0.056, 0.054)}
ACCEPTANCE, REPEATS, DUPLICATES, SAMPLES = 0.5, 0.005, 0.04, 128


def shard(
    number: int,
    draw: random.Random | None = None,
    *,
    version: int = 1,
    samples: int = SAMPLES,
    **figures: float,
) -> ShardCurated:
    """Return a shard; `draw` makes it differ from the mean as real ones do, `figures` (with __ for a dot) override."""

    def noise() -> float:
        return draw.gauss(0, 1) if draw else 0.0

    shared = noise()
    diversity: dict[str, float] = {"words": 900, "made": samples, "judged": samples, "eligible": samples}
    for name, (synthetic, real, real_sd, spread) in TEXT_FIGURES.items():
        # Figures of one shard go together: half of their variance is shared.
        diversity[f"synthetic.{name}"] = synthetic + spread * (shared + noise()) / 2**0.5
        diversity |= {f"real.{name}": real, f"real_sd.{name}": real_sd}
    for name, (share, sd, spread) in COVERAGE.items():
        diversity |= {f"coverage.{name}": share + spread * noise(), f"coverage_sd.{name}": sd}
    diversity |= {name.replace("__", "."): value for name, value in figures.items()}
    for name, mean in (("acceptance", ACCEPTANCE), ("repeats", REPEATS), ("duplicates", DUPLICATES)):
        expected = diversity.get(name, mean)
        happened = sum(draw.random() < expected for _ in range(samples)) / samples if draw else expected
        diversity[name] = happened
    accepted = round(diversity["acceptance"] * samples)
    return ShardCurated(
        domain=DOMAIN,
        shard_id=digest_of("shard", number),
        batch_id=digest_of("shard", number),
        generator_version=version,
        manifest_key=f"shards/{DOMAIN}/{number}/manifest.json",
        manifest_sha256=digest_of("manifest", number),
        samples=accepted,
        tokens=1_000,
        real_tokens=350,
        accepted=accepted,
        candidates=samples,
        diversity=diversity,
    )


def healthy(count: int, *, seed: int | None = None, start: int = 0, version: int = 1) -> list[ShardCurated]:
    """Return shards of one generator that does not change; without a seed they do not differ either."""
    draw = None if seed is None else random.Random(seed)
    return [shard(number, draw, version=version) for number in range(start, start + count)]


def collapsed(count: int, *, start: int, seed: int | None = None, version: int = 1) -> list[ShardCurated]:
    """Return shards of a generator that says next to the same whatever it is asked (temperature 0 on one prompt)."""
    draw = None if seed is None else random.Random(seed)
    return [shard(number, draw, version=version, **COLLAPSE) for number in range(start, start + count)]


COLLAPSE: Mapping[str, Any] = {
    "synthetic__distinct_1": 0.15,
    "synthetic__distinct_2": 0.30,
    "synthetic__compression_ratio": 6.0,
    "synthetic__self_similarity": 0.7,
    "coverage__once": 0.06,
    "coverage__2_to_4": 0.2,
    "acceptance": 0.08,
    "repeats": 0.9,
}


def without_texts(one: ShardCurated) -> ShardCurated:
    """Return the shard as it is when too few samples were accepted to compare their texts."""
    kept = {name: value for name, value in one.diversity.items() if "." not in name}
    return one.model_copy(update={"diversity": kept})


def ids(shards: Sequence[ShardCurated]) -> list[str]:
    return [one.shard_id for one in shards]
