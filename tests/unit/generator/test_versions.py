"""Versions on disk: whole or not there, the link never broken, the base never removed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jupiter.errors import IntegrityError
from jupiter.generator.versions import Versions
from jupiter.manifests import Committed
from jupiter.records import BlobRef
from tests.unit.generator.stage import Stage


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(directory=tmp_path)


def renamed(committed: Committed, old: str, new: str) -> Committed:
    files = tuple(
        BlobRef(name=new, key=ref.key, size=ref.size, sha256=ref.sha256) if ref.name == old else ref
        for ref in committed.manifest.files
    )
    manifest = committed.manifest.model_copy(update={"files": files})
    return Committed(manifest=manifest, key=committed.key, sha256=committed.sha256, won=False)


def test_a_version_is_fetched_once_in_hugging_face_layout(stage: Stage, tmp_path: Path) -> None:
    committed = stage.store_version(1)
    versions = Versions(tmp_path / "generators")
    directory = versions.fetch(stage.blobs, 1, committed)
    assert directory == tmp_path / "generators" / "generator_v1"
    assert {"config.json", "model.safetensors", "tokenizer.json", "golden.json", "manifest.json"} <= {
        path.name for path in directory.iterdir()
    }
    stage.blobs.available = False
    assert versions.fetch(stage.blobs, 1, committed) == directory


def test_another_version_of_the_same_number_replaces_it(stage: Stage, tmp_path: Path) -> None:
    versions = Versions(tmp_path / "generators")
    first = stage.store_version(1)
    before = (versions.fetch(stage.blobs, 1, first) / "model.safetensors").read_bytes()
    other = Stage(directory=tmp_path / "other")
    after = (versions.fetch(other.blobs, 1, other.store_version(1, seed=9)) / "model.safetensors").read_bytes()
    assert before != after


def test_a_failed_fetch_leaves_nothing_behind(stage: Stage, tmp_path: Path) -> None:
    committed = stage.store_version(1)
    ref = committed.manifest.file("model/tokenizer.json")
    stage.blobs.put(ref.key, b"x" * ref.size)
    versions = Versions(tmp_path / "generators")
    with pytest.raises(IntegrityError):
        versions.fetch(stage.blobs, 1, committed)
    assert list((tmp_path / "generators").iterdir()) == []


@pytest.mark.parametrize("name", ["model/../../escaped.json", "model/sub/config.json", "model/.."])
def test_a_name_that_leaves_the_directory_is_refused(stage: Stage, tmp_path: Path, name: str) -> None:
    committed = renamed(stage.store_version(1), "model/generation_config.json", name)
    with pytest.raises(IntegrityError, match="outside of the version"):
        Versions(tmp_path / "generators").fetch(stage.blobs, 1, committed)


@pytest.mark.parametrize("name", ["golden.json", "model/config.json", "model/tokenizer.json"])
def test_a_manifest_that_lacks_what_a_generator_needs_is_refused(stage: Stage, tmp_path: Path, name: str) -> None:
    committed = renamed(stage.store_version(1), name, "model/something_else.json")
    with pytest.raises(IntegrityError, match="lacks"):
        Versions(tmp_path / "generators").fetch(stage.blobs, 1, committed)


def test_what_a_killed_process_left_is_swept_a_day_later(tmp_path: Path) -> None:
    for name in (".arriving-1-old", ".arriving-2-new"):
        (tmp_path / name).mkdir()
    (tmp_path / ".current-old").symlink_to("nowhere")
    os.utime(tmp_path / ".arriving-1-old", (0, 0))
    os.utime(tmp_path / ".current-old", (0, 0), follow_symlinks=False)
    Versions(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".arriving-2-new"]


def test_the_link_points_at_one_version_at_any_time(tmp_path: Path) -> None:
    versions = Versions(tmp_path)
    for version in (1, 2, 1):
        versions.path(version).mkdir(exist_ok=True)
        versions.point_current(version)
        assert (tmp_path / "current").resolve() == versions.path(version)
    assert {path.name for path in tmp_path.iterdir()} == {"current", "generator_v1", "generator_v2"}


def test_pruning_keeps_what_it_must_and_removes_the_oldest_of_the_rest(tmp_path: Path) -> None:
    versions = Versions(tmp_path)
    for version in range(1, 13):
        versions.path(version).mkdir()
    versions.point_current(12)
    assert versions.prune(keep={1, 11, 12}, versions_max=5) == [2, 3, 4, 5, 6, 7, 8]
    assert versions.prune(keep={1, 11, 12}, versions_max=1) == [9, 10]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "current",
        "generator_v1",
        "generator_v11",
        "generator_v12",
    ]
