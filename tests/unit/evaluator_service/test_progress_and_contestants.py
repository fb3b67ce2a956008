"""The progress line, and what stays on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from jupiter.blobs.memory import MemoryBlobs
from jupiter.evaluator.contestants import Contestants
from jupiter.evaluator.progress import ProgressLine
from tests.unit.evaluator_service.stage import store_model


def test_progress_counts_and_is_rate_limited() -> None:
    seen: list[tuple[int, int]] = []

    def report(*, done: int, total: int, rate_per_s: float | None) -> None:
        assert rate_per_s is not None
        seen.append((done, total))

    line = ProgressLine(report, total=10, between=_nothing, interval_s=0)
    for _ in range(3):
        line(2)
    assert seen == [(2, 10), (4, 10), (6, 10)]
    silent = ProgressLine(report, total=10, between=_nothing, interval_s=3600)
    silent(5)
    assert len(seen) == 3


_nothing: Callable[[], None] = lambda: None  # noqa: E731


def test_a_generator_is_fetched_once_and_a_candidate_does_not_stay(tmp_path: Path) -> None:
    blobs = MemoryBlobs()
    contestants = Contestants(tmp_path)
    version = store_model(blobs, "base", kind="generator", prefix="generators/domain_a/v1", folder="")
    first = contestants.generator(blobs, version)
    assert (first / "model.safetensors").read_text() == "base"
    for info in list(blobs.list("")):
        blobs.delete(info.key)
    assert contestants.generator(blobs, version) == first
    checkpoint = store_model(blobs, "candidate", kind="checkpoint", prefix="checkpoints/domain_a/run1/1")
    with contestants.candidate(blobs, checkpoint) as directory:
        assert sorted(path.name for path in directory.iterdir()) == ["config.json", "model.safetensors"]
    assert not directory.exists()


def test_only_the_newest_generators_are_kept(tmp_path: Path) -> None:
    blobs, contestants = MemoryBlobs(), Contestants(tmp_path)
    for number in range(4):
        version = store_model(blobs, f"v{number}", kind="generator", prefix=f"generators/domain_a/v{number}")
        newest = contestants.generator(blobs, version)
    assert newest in list(tmp_path.glob("generator-*"))
    assert len(list(tmp_path.glob("generator-*"))) == 2


def test_what_a_killed_evaluator_left_is_removed(tmp_path: Path) -> None:
    abandoned = tmp_path / "candidate-999999999-abc"
    abandoned.mkdir()
    Contestants(tmp_path)
    assert not abandoned.exists()
