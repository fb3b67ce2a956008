"""Checkpoints: the whole state of a run, as files here and as a committed manifest in the store.

Owns: what the files are called and hold. Does not know: when one is due, nor what is done with it, nor how many
processes trained: the files are the same.

    model/…                      bfloat16 weights, config and tokenizer in Hugging Face layout: what a generator serves
    golden.json                  what that model answers (`jupiter.modeling`)
    training_state.safetensors   float32 master weights (of an adapter: its own), AdamW moments, random state
    training_state.json          position in the log, loss guard, counts, settings
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from safetensors.torch import load_file, save_file

from jupiter import keys, manifests
from jupiter.blobs import Blobs
from jupiter.events import CheckpointSaved
from jupiter.manifests import Committed
from jupiter.modeling import GOLDEN_FILE, record_golden
from jupiter.records import BlobRef, Record, canonical_json, digest_of
from jupiter.trainer.rounds import ConsumedShard
from jupiter.trainer.starting_point import MODEL_PREFIX
from jupiter.trainer.student import Student
from jupiter.withdrawals import Omission, Withdrawn, together

__all__ = ["RunState", "commit", "event_of", "list_newest_first", "read_state", "write_model", "write_state"]

TENSORS_FILE = "training_state.safetensors"
STATE_FILE = "training_state.json"


class RunState(Record):
    """Where a run is, besides its tensors."""

    run: str
    base_manifest_sha256: str
    config: Mapping[str, Any]
    step: int = 0
    """Optimizer steps taken."""
    tokens_seen: int = 0
    window: tuple[ConsumedShard, ...] = ()
    """Shards that this round and later ones train on, oldest first; the newest began this round."""
    round_steps_done: int = 0
    shards: tuple[str, ...] = ()
    """Ids of all shards trained on, in order."""
    counts: Mapping[str, int] = Field(default_factory=dict)
    """What happened to their samples, added up (`shards.LoadedShard.counts`)."""
    loss_sum: float = 0.0
    """Of the steps since the last checkpoint."""
    loss_steps: int = 0
    guard: Mapping[str, Any] = Field(default_factory=dict)
    omissions: tuple[Omission, ...] = ()
    """What the run leaves out, each from one round on: oldest first."""
    rewound_from: str | None = None
    """The checkpoint that this run was sent back to, where it began."""

    @property
    def withdrawn(self) -> Withdrawn:
        """All that the present round leaves out."""
        return together(omission.withdrawn for omission in self.omissions)

    @property
    def shard_sequence(self) -> int:
        """The offset in the shards' stream."""
        return self.window[-1].sequence if self.window else 0

    @property
    def loss(self) -> float:
        """Mean loss per step since the last checkpoint."""
        return self.loss_sum / max(1, self.loss_steps)

    def checkpointed(self) -> RunState:
        """Return the state as it goes on from its checkpoint: with a new mean of the loss."""
        return self.model_copy(update={"loss_sum": 0.0, "loss_steps": 0})


def write_model(student: Student, directory: Path, *, source: Path, dtype: str) -> None:
    """Write the model as a generator serves it, and its golden outputs in the dtype that one serves in.

    Raises UnfitModel when it is none. The tokenizer's files are those of `source`, byte for byte: the student never
    changes them.
    """
    target = directory / MODEL_PREFIX
    target.mkdir(parents=True)
    student.model.save_pretrained(target, state_dict=student.served_weights())
    config = copy.deepcopy(student.model.config)
    config.dtype = torch.bfloat16
    config.save_pretrained(target)
    for path in source.iterdir():
        if path.is_file() and not (target / path.name).exists() and not _is_weights_or_record(path.name):
            shutil.copyfile(path, target / path.name)
    with torch.random.fork_rng():  # loading a model draws random numbers, and training's must not depend on that
        golden = record_golden(target, dtype=dtype, device=str(student.device))
    (directory / GOLDEN_FILE).write_bytes(canonical_json(golden))


def write_state(student: Student, state: RunState, directory: Path) -> None:
    """Write everything that a bit-equal continuation needs."""
    directory.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in student.state().items()}, directory / TENSORS_FILE)
    (directory / STATE_FILE).write_bytes(canonical_json(state))


def read_state(directory: Path) -> tuple[RunState, dict[str, torch.Tensor]]:
    """Return what `write_state` wrote."""
    state = RunState.model_validate_json((directory / STATE_FILE).read_bytes())
    return state, load_file(directory / TENSORS_FILE)


def fetch_state(blobs: Blobs, committed: Committed, directory: Path) -> None:
    """Bring a committed checkpoint's training state into `directory`. Raises NotFound, IntegrityError."""
    manifests.fetch(blobs, committed.manifest, directory, names=(TENSORS_FILE, STATE_FILE))


def commit(blobs: Blobs, directory: Path, state: RunState, *, domain: str) -> Committed:
    """Upload what lies in `directory`, then create the manifest if absent: the commit rule (DESIGN §4)."""
    prefix = keys.checkpoint_prefix(domain, state.run, state.step)
    files: list[BlobRef] = []
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        name = path.relative_to(directory).as_posix()
        files.append(manifests.upload_file(blobs, prefix=prefix, name=name, path=path))
    return manifests.commit(
        blobs,
        prefix=prefix,
        kind="checkpoint",
        domain=domain,
        work_id=digest_of(domain, state.run, state.step),
        files=tuple(files),
        details={
            "run": state.run,
            "step": state.step,
            "tokens_seen": state.tokens_seen,
            "loss": state.loss,
            "shard_sequence": state.shard_sequence,
            "shards": list(state.shards),
            "omissions": [omission.model_dump(mode="json") for omission in state.omissions],
            "rewound_from": state.rewound_from,
            "samples": dict(state.counts),
            "control": state.config["control"],
            "config": dict(state.config),
            "base_manifest_sha256": state.base_manifest_sha256,
        },
    )


def event_of(committed: Committed) -> CheckpointSaved:
    """Return the event of a committed checkpoint; it holds nothing that the manifest does not."""
    details = committed.manifest.details
    return CheckpointSaved(
        domain=committed.manifest.domain,
        checkpoint_id=committed.manifest.work_id,
        run=details["run"],
        step=details["step"],
        tokens_seen=details["tokens_seen"],
        loss=details["loss"],
        shard_sequence=details["shard_sequence"],
        manifest_key=committed.key,
        manifest_sha256=committed.sha256,
    )


def list_newest_first(blobs: Blobs, *, domain: str, run: str) -> list[str]:
    """Return the keys of the manifests of a run's committed checkpoints, newest first."""
    prefix = f"checkpoints/{domain}/{run}/"
    found = [info.key for info in blobs.list(prefix) if info.key.endswith("/manifest.json")]
    return sorted(found, reverse=True)


def _is_weights_or_record(name: str) -> bool:
    weights = (".safetensors", ".index.json", ".bin", ".gguf", ".pt", ".pth")
    return name.endswith(weights) or name in (GOLDEN_FILE, "manifest.json")
