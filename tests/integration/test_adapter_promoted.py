"""A LoRA student on its way to serving: trained, saved, promoted by the ledger, attested, asked for a batch.

Three services' own code on the in-memory twins. Whoever serves knows nothing of adapters.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch  # noqa: TID253 - weights are what is compared here
from safetensors.torch import load

from jupiter import manifests
from jupiter.config import ClusterConfig
from jupiter.controller.flips import Request, announcement_of, flip_to_checkpoint
from jupiter.events import BatchGenerated, CheckpointSaved, GeneratorLoaded, GeneratorPromoted
from jupiter.service import Runtime, running
from jupiter.trainer.handlers import parts
from tests.unit.generator.stage import Stage
from tests.unit.trainer.material import commit_shard, config_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

RANK, ALPHA = 4, 16
LAYER = "model.layers.1.self_attn.q_proj"


async def trained(stage: Stage, config: ClusterConfig) -> CheckpointSaved:
    """Run a trainer until its first checkpoint is published."""
    runtime = Runtime.in_memory(name="trainer", config=config, bus=stage.bus, blobs=stage.blobs, instance="trainer")
    async with running(runtime, parts(runtime)):
        for number in range(3):
            await stage.bus.publish(commit_shard(stage.blobs, stage.domain, number))
        (saved,) = await stage.until_published("checkpoints", 1)
    assert isinstance(saved, CheckpointSaved)
    return saved


async def promote(stage: Stage, saved: CheckpointSaved) -> None:
    """Promote as the controller does, and announce it."""
    entry = await asyncio.to_thread(
        flip_to_checkpoint,
        stage.blobs,
        stage.domain,
        Request(actor="test", reason="it learned", action="promoted"),
        checkpoint_id=saved.checkpoint_id,
        manifest_key=saved.manifest_key,
        manifest_sha256=saved.manifest_sha256,
    )
    await stage.bus.publish(GeneratorPromoted.model_validate(announcement_of(entry)))


def merged(stage: Stage, saved: CheckpointSaved, frozen: torch.Tensor) -> torch.Tensor:
    """Return the layer's weight by LoRA's definition, from the matrices that the checkpoint's training state holds."""
    manifest = manifests.read(stage.blobs, saved.manifest_key, sha256=saved.manifest_sha256).manifest
    state = load(stage.blobs.get(manifest.file("training_state.safetensors").key))
    down, up = (state[f"weight.{LAYER}.lora_{which}.default.weight"] for which in "AB")
    return (frozen.float() + ALPHA / RANK * up @ down).to(torch.bfloat16)


async def test_a_lora_student_is_trained_promoted_attested_and_serves_as_a_plain_model(tmp_path: Path) -> None:
    stage = Stage(directory=tmp_path)
    stage.store_version(1)
    await stage.flip(1)
    adapter: dict[str, Any] = {"adapter": "lora", "adapter_rank": RANK, "adapter_alpha": ALPHA}
    config = config_for(tmp_path / "trainer", domain=stage.domain, learning_rate=2e-2, **adapter)
    async with stage.generator() as (deps, _):
        await stage.until_published("loads", 1)
        assert deps.serving.current is not None
        base = dict(deps.serving.current.handle.model.state_dict())
        saved = await trained(stage, config)
        await promote(stage, saved)
        (_, second) = await stage.until_published("loads", 2)
        assert isinstance(second, GeneratorLoaded)
        assert second.version == 2
        served = dict(deps.serving.current.handle.model.state_dict())
        await stage.bus.publish(stage.request(1, version=2))
        (batch,) = await stage.until_published("batches", 1)
    assert isinstance(batch, BatchGenerated)
    assert {sample.generator_version for sample in stage.samples(batch)} == {2}
    assert {name: weight.shape for name, weight in served.items()} == {n: w.shape for n, w in base.items()}
    frozen = base[f"{LAYER}.weight"]
    assert not torch.equal(served[f"{LAYER}.weight"], frozen)
    assert torch.equal(served[f"{LAYER}.weight"], merged(stage, saved, frozen))
    assert torch.equal(served["model.norm.weight"], base["model.norm.weight"]), "what has no adapter has not moved"
