"""What the trainer's tests train on: tiny shards in a store, a tiny registered student."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jupiter import keys, manifests
from jupiter.blobs import Blobs
from jupiter.config import ClusterConfig
from jupiter.config.sections import LocalSection, SelfImprovementSection, TrainerSection
from jupiter.events import ShardCurated
from jupiter.records import Sample, digest_of
from jupiter.sample_files import write_parquet
from tests.tiny_model import make_tiny_model, tiny_texts

__all__ = ["DOMAIN", "commit_shard", "config_for", "register_base", "sample", "samples_of_shard"]

DOMAIN = "tiny"


def sample(number: int, **changes: Any) -> Sample:
    """Return an instruction sample about document `number`."""
    values: dict[str, Any] = {
        "sample_id": digest_of("sample", number),
        "origin": "synthetic",
        "instruction": f"What does function_{number} do?",
        "response": f"module.function_{number}: It returns the number {number} {number * 7 % 11} times.",
        "loss_on": "all",
        "document_id": digest_of("document", number),
        "task": "explain",
    }
    return Sample.model_validate(values | changes)


def samples_of_shard(number: int, *, count: int = 12) -> list[Sample]:
    """Return `count` instruction samples and one real document."""
    texts = [text for text in tiny_texts() if len(text) > 80]
    document = sample(
        10_000 + number,
        instruction=None,
        response=texts[number % len(texts)][:300],
        origin="real",
        loss_on="all",
        task="document",
    )
    return [*(sample(100 * number + place) for place in range(count)), document]


def commit_shard(
    blobs: Blobs, domain: str, number: int, *, samples: Sequence[Sample] | None = None, version: int = 1
) -> ShardCurated:
    """Commit a shard as the curator does, of the batch that `version` made for request `number`; return its event."""
    shard_id = digest_of("shard", number)
    content = samples_of_shard(number) if samples is None else samples
    prefix = keys.shard_prefix(domain, shard_id)
    file = manifests.upload_bytes(blobs, prefix=prefix, name="samples.parquet", data=write_parquet(content))
    details = {"generator_version": version, "batch_sequence": number}
    committed = manifests.commit(
        blobs, prefix=prefix, kind="shard", domain=domain, work_id=shard_id, files=(file,), details=details
    )
    return ShardCurated(
        domain=domain,
        shard_id=shard_id,
        batch_id=shard_id,
        generator_version=version,
        manifest_key=committed.key,
        manifest_sha256=committed.sha256,
        samples=len(content),
        tokens=10,
        real_tokens=3,
        accepted=len(content),
        candidates=len(content),
    )


def register_base(blobs: Blobs, domain: str, directory: Path) -> str:
    """Register a tiny model as generator version 1 and return its manifest's sha256."""
    make_tiny_model(directory)
    prefix = keys.generator_prefix(domain, 1)
    files = tuple(
        manifests.upload_file(blobs, prefix=prefix, name=path.name, path=path) for path in sorted(directory.iterdir())
    )
    return manifests.commit(
        blobs, prefix=prefix, kind="generator", domain=domain, work_id="1" * 64, files=files, details={"version": 1}
    ).sha256


def config_for(directory: Path, *, domain: str = "tiny", eval_every_steps: int = 4, **settings: Any) -> ClusterConfig:
    """Return a configuration under which a step of the tiny model takes milliseconds."""
    defaults: dict[str, Any] = {
        "tokens_per_step": 192,
        "sequence_length": 128,
        "passes_per_shard": 2,
        "learning_rate": 1e-3,
        "device": "cpu",
    }
    return ClusterConfig(
        domain=domain,
        data_dir=directory,
        trainer=TrainerSection.model_validate(defaults | settings),
        self_improvement=SelfImprovementSection(eval_every_steps=eval_every_steps),
        local=LocalSection(compute_slots=0),
    )
