"""Every way in which a version can be bad: refused by name, and the old one serves on."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from jupiter.errors import ConfigError, JupiterError, Retry
from jupiter.generator.engines import EngineSettings, create_engine
from jupiter.modeling import GOLDEN_FILE, AttestationError, NoRoom, UnfitModel, read_golden
from jupiter.modeling.golden import file_digests
from jupiter.records import Sampling
from tests.vllm.versions import (
    Tenants,
    Versions,
    Working,
    engine_processes,
    prompts,
    sign_again,
    write_golden,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LONG = Sampling(temperature=0, max_new_tokens=300)


@pytest.fixture(scope="module")
def engine(versions: Versions) -> Tenants:
    return versions.engine()


def truncate(version: Path) -> None:
    weights = version / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-64])


def flip_a_bit(version: Path) -> None:
    weights = bytearray((version / "model.safetensors").read_bytes())
    weights[-1000] ^= 0x40
    (version / "model.safetensors").write_bytes(weights)


def change_config(version: Path, **changes: object) -> None:
    path = version / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    sign_again(version)


def leave_out_a_layer(version: Path) -> None:
    change_config(version, num_hidden_layers=1)


def turn_positions_otherwise(version: Path) -> None:
    rope = json.loads((version / "config.json").read_text())["rope_parameters"]
    change_config(version, rope_parameters=rope | {"rope_theta": 100.0})


def change_tokenizer(version: Path) -> None:
    path = version / "tokenizer.json"
    path.write_text(path.read_text().replace('"add_prefix_space": false', '"add_prefix_space": true'))
    sign_again(version)


def swap_a_layer(version: Path) -> None:
    """Right names, right shapes, right digests, wrong numbers: only an answer can show it."""
    path = version / "model.safetensors"
    weights = load_file(path)
    first, second = "model.layers.0.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.weight"
    weights[first], weights[second] = weights[second].clone(), weights[first].clone()
    save_file(weights, path, metadata={"format": "pt"})
    sign_again(version)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (truncate, r"truncated"),
        (flip_a_bit, r"model\.safetensors .*sha256"),
        (leave_out_a_layer, r"vLLM started no engine for .*leave_out_a_layer"),
        (turn_positions_otherwise, r"golden prompt .*(log-probability|greedy choice)"),
        (change_tokenizer, r"the tokenizer is not the recorded one"),
        (swap_a_layer, r"golden prompt .*(log-probability|greedy choice)"),
    ],
)
def test_a_bad_version_is_refused_by_name_and_the_old_one_serves_on(
    versions: Versions, engine: Tenants, spoil: Callable[[Path], None], reason: str
) -> None:
    a = engine.serve(versions.a)
    asked = prompts(12)
    expected = engine.texts(a, asked, LONG)
    bad = versions.copy(versions.b, spoil.__name__)
    spoil(bad)
    with Working(engine, a, asked, LONG) as work, pytest.raises(JupiterError, match=reason):
        engine.lend(bad)
    assert work.texts == expected
    assert engine.texts(a, asked, LONG) == expected
    assert len(engine_processes(expected=1)) == 1


def test_a_reload_that_fails_half_way_leaves_the_old_weights_whole(versions: Versions, engine: Tenants) -> None:
    a = engine.serve(versions.a)
    asked = prompts(12)
    expected = engine.texts(a, asked, LONG)
    halved = shard(versions.copy(versions.b, "halved"))
    b = engine.serve(halved)
    engine.engine.activate(a)
    assert engine.texts(a, asked, LONG) == expected
    last = halved / "model-00002-of-00002.safetensors"
    last.write_bytes(last.read_bytes()[:-64])
    b.proof = None  # the disk fails after the files were checked
    (before,) = engine_processes()
    with Working(engine, a, asked, LONG) as work, pytest.raises(UnfitModel, match="cannot be loaded in place"):
        engine.engine.activate(b)
    assert work.texts == expected
    assert engine.texts(a, asked, LONG) == expected
    assert engine_processes() == [before]
    engine.release(b)


def leave_a_weight_out(file: Path) -> None:
    weights = load_file(file)
    del weights["model.layers.1.mlp.down_proj.weight"]
    save_file(weights, file, metadata={"format": "pt"})


def make_unreadable(file: Path) -> None:
    """Mapping it fails with an error of the system, as of a disk."""
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize(
    ("spoil", "error", "said"),
    [
        (leave_a_weight_out, UnfitModel, r"not loaded: model\.layers\.1\.mlp\.down_proj\.weight"),
        (make_unreadable, Retry, r"cannot be read on this machine: OSError"),
    ],
    ids=["a weight that vllm would leave as it was", "a disk that cannot be read is no bad version"],
)
def test_a_reload_fails_and_the_old_weights_serve_on(
    spoil: Callable[[Path], None], error: type[Exception], said: str, versions: Versions, engine: Tenants
) -> None:
    a = engine.serve(versions.a)
    expected = engine.texts(a, prompts(4))
    spoiled = versions.copy(versions.b, spoil.__name__)
    b = engine.load(spoiled)
    spoil(spoiled / "model.safetensors")
    with pytest.raises(error, match=said):
        engine.engine.activate(b)
    assert engine.texts(a, prompts(4)) == expected
    engine.release(b)


def test_a_version_that_is_damaged_on_this_disk_is_refused_when_it_comes_back(
    versions: Versions, engine: Tenants
) -> None:
    a = engine.serve(versions.a)
    expected = engine.texts(a, prompts(4))
    damaged = versions.copy(versions.b, "damaged")
    b = engine.serve(damaged)
    engine.engine.activate(a)
    flip_a_bit(damaged)
    with pytest.raises(AttestationError, match=r"model\.safetensors .*sha256"):
        engine.texts(b, prompts(4))
    assert engine.engine._host_of[a].resident is a
    assert engine.texts(a, prompts(4)) == expected
    engine.release(b)


def shard(version: Path) -> Path:
    """Split the weights into two files, as large models have them."""
    weights = load_file(version / "model.safetensors")
    (version / "model.safetensors").unlink()
    names = sorted(weights)
    weight_map: dict[str, str] = {}
    for number, part in enumerate((names[: len(names) // 2], names[len(names) // 2 :]), start=1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({name: weights[name] for name in part}, version / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    (version / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    sign_again(version)
    return version


def test_weights_that_come_back_other_than_they_were_are_found_within_the_golden_tolerance(
    versions: Versions, engine: Tenants
) -> None:
    a = engine.serve(versions.a)
    expected = engine.texts(a, prompts(2))
    nearly = versions.copy(versions.b, "nearly")
    b = engine.serve(nearly)
    engine.engine.activate(a)
    golden = read_golden(nearly / GOLDEN_FILE)
    weights = load_file(nearly / "model.safetensors")
    weights["model.norm.weight"] *= 1.05
    save_file(weights, nearly / "model.safetensors", metadata={"format": "pt"})
    assert b.proof is not None
    b.proof.golden = golden.model_copy(update={"files": file_digests(nearly)})  # else the file itself gives it away
    b.proof.tolerance = 1.0
    with pytest.raises(JupiterError, match="these weights answered"):
        engine.engine.activate(b)
    assert engine.engine._host_of[a].resident is a
    assert engine.texts(a, prompts(2)) == expected
    write_golden(nearly, golden)
    engine.release(b)


def test_an_engine_that_dies_is_started_again_and_the_batch_is_asked_for_again(
    versions: Versions, engine: Tenants
) -> None:
    a = engine.serve(versions.a)
    asked = prompts(12)
    expected = engine.texts(a, asked, LONG)
    (process,) = engine_processes()
    with pytest.raises(Retry, match="died"), Working(engine, a, asked, LONG, after=1):
        os.kill(process.pid, signal.SIGKILL)
    assert engine.texts(a, asked, LONG) == expected
    (another,) = engine_processes()
    assert another.pid != process.pid


def test_a_model_that_the_memory_cannot_hold_is_no_bad_model(versions: Versions) -> None:
    greedy = versions.engine(kv_cache_gib=100_000)
    weights = greedy.load(versions.a)
    with pytest.raises(NoRoom, match=r"needs \d+ MiB"):
        greedy.attest(weights)


def test_a_device_that_this_vllm_does_not_have_is_a_wrong_setting() -> None:
    settings = EngineSettings(dtype="float32", device="cuda", batch_size=8)
    with pytest.raises(ConfigError, match=r"generator\.device is 'cuda'"):
        create_engine("vllm", settings)


def test_without_a_compiler_the_setting_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM itself would start, and die of the first request for log-probabilities."""
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match=r"needs a C\+\+ compiler, and 'no-such-compiler' is not on the PATH"):
        create_engine("vllm", EngineSettings(dtype="float32", device="cpu", batch_size=8))
