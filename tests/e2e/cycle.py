"""A cycle of seconds: the tiny model, made-up documents, real servers and real processes.

Owns: the configuration of the end-to-end tests, and what must hold after every one of them.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jupiter import keys
from jupiter.blobs import Blobs
from jupiter.config import ClusterConfig
from jupiter.events import BatchGenerated, CheckpointSaved, EvaluationCompleted, ShardCurated
from jupiter.ledger import read_ledger
from jupiter.local.cluster import LocalCluster
from jupiter.local.documents import publish
from jupiter.local.losses import count_lost
from jupiter.manifests import read
from tests.e2e.documents import made_up_documents
from tests.tiny_model import make_tiny_model

ROOT = Path(__file__).parents[2]
DOMAIN = "made_up"
# Generous: three services import torch on cores that other tests use too.
WAIT_S = 300
RATIO_MIN, RATIO_MAX = 0.30, 0.40

SETTINGS: dict[str, Any] = {
    "domain": DOMAIN,
    # What a killed service had in hand is given out again after this.
    "nats": {"ack_wait_s": 5.0},
    "self_improvement": {
        "eval_every_steps": 3,
        "min_steps_before_replace": 3,
        "benchmark_samples": 40,
        "mode": "approve",
    },
    "generator": {"engine": "tests.e2e.rewriting_engine", "device": "cpu", "dtype": "float32"},
    "trainer": {
        "device": "cpu",
        "precision": "float32",
        "tokens_per_step": 256,
        "sequence_length": 256,
        "passes_per_shard": 1,
        "learning_rate": 1e-3,
        "divergence_nats": 100.0,
    },
    "evaluator": {"device": "cpu", "dtype": "float32", "corpus_quiet_s": 1.0},
    "controller": {
        "port": 0,
        "samples_per_request": 8,
        "in_flight_requests_max": 2,
        "load_timeout_s": 60,
        "sampling": {"max_new_tokens": 32},
    },
    "local": {"turn_s_max": 1.0, "threads": 1},
}
DOMAIN_FILE = """\
description: Made-up things
tasks: [{task: restate}, {task: need}, {task: explain}]
"""


def prepare(place: Path) -> ClusterConfig:
    """Make a working directory as a user has one, with the tiny model in it, and return its configuration."""
    domains = place / "config" / "domains"
    domains.mkdir(parents=True)
    (domains / f"{DOMAIN}.yaml").write_text(DOMAIN_FILE)
    lines = [document.model_dump_json() for document in made_up_documents()]
    (place / "documents.jsonl").write_text("\n".join(lines))
    base = make_tiny_model(place / "base")
    return ClusterConfig.model_validate(
        {
            **SETTINGS,
            "data_dir": place / "data",
            "generator": {**SETTINGS["generator"], "base_model": str(base)},
            "controller": {**SETTINGS["controller"], "state_file": str(place / "pipeline_state.json")},
        }
    )


def environment_of_services(**extra: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return what the services need to find the test engine, and `extra` by service."""
    names = ("controller", "curator", "generator", "trainer", "evaluator")
    return {name: {"PYTHONPATH": str(ROOT), **extra.get(name, {})} for name in names}


async def start(cluster: LocalCluster) -> None:
    """Start the cluster and publish the documents (again: that changes nothing)."""
    await cluster.start()
    await publish(cluster.bus, DOMAIN, made_up_documents())


def cluster_of(config: ClusterConfig, **extra: Mapping[str, str]) -> LocalCluster:
    return LocalCluster(config, environment=environment_of_services(**extra))


async def until(condition: Callable[[], object], *, what: str, timeout_s: float = WAIT_S) -> None:
    """Wait for something that no event tells."""
    try:
        async with asyncio.timeout(timeout_s):
            while not condition():  # noqa: ASYNC110 - the condition is another process's doing
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"waited {timeout_s} s for {what}, in vain") from None


def kill_9(cluster: LocalCluster, name: str) -> int:
    """Kill one process of the cluster as the kernel would, and return its pid."""
    import signal

    pid = cluster.processes[name].pid
    assert pid is not None, f"{name} is not running"
    os.kill(pid, signal.SIGKILL)
    return pid


async def check_nothing_lost_or_doubled(cluster: LocalCluster) -> None:
    """Assert what must hold of the store and the streams whatever was killed."""
    seen = cluster.watch
    for kind, identity in (
        (BatchGenerated, "batch_id"),
        (ShardCurated, "batch_id"),
        (CheckpointSaved, "step"),
        (EvaluationCompleted, "evaluation_id"),
    ):
        counts = Counter(getattr(event, identity) for event in seen.all(kind))
        assert not [name for name, count in counts.items() if count > 1], f"{kind.__name__} twice"
    lost = await count_lost(cluster.bus, domain=DOMAIN)
    assert not any(lost.values()), lost
    # From the stream, not from the watch: what a trainer has consumed may not have been read by the watch yet.
    shards = cluster.bus.read(keys.subject(ShardCurated.channel, DOMAIN), follow=False)
    curated = [entry.event async for entry in shards if isinstance(entry.event, ShardCurated)]
    await asyncio.to_thread(_check_store, cluster.blobs, curated, seen.all(CheckpointSaved))


def _check_store(blobs: Blobs, shards: list[ShardCurated], checkpoints: list[CheckpointSaved]) -> None:
    """`shards` are in stream order. Nothing is withdrawn in these tests, so the trainer may leave none out."""
    for shard in shards:
        details = read(blobs, shard.manifest_key, sha256=shard.manifest_sha256).manifest.details
        if details["tokens"]:
            assert RATIO_MIN <= details["real_tokens"] / details["tokens"] <= RATIO_MAX
    consumed: list[str] = []
    if checkpoints:
        newest = checkpoints[-1]
        consumed = read(blobs, newest.manifest_key, sha256=newest.manifest_sha256).manifest.details["shards"]
    assert len(consumed) == len(set(consumed)), "a shard was trained on twice"
    assert consumed == [shard.shard_id for shard in shards[: len(consumed)]], "a shard was left out, or out of turn"
    sequences = [entry.sequence for entry in read_ledger(blobs, DOMAIN)]
    assert sequences == list(range(1, len(sequences) + 1))
