"""The whole cycle on one machine: real nats-server, real S3, five real service processes, a tiny model."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import nats
import pytest

from jupiter import manifests
from jupiter.config import ClusterConfig
from jupiter.config.loading import settings_as_environment
from jupiter.events import (
    BatchGenerated,
    BenchmarkFrozen,
    CheckpointSaved,
    DocumentAccepted,
    EvaluationCompleted,
    GeneratorLoaded,
    GeneratorLoadFailed,
    GeneratorPromoted,
    GeneratorRolledBack,
    ShardCurated,
    VerdictReached,
)
from jupiter.ledger import current, read_ledger
from jupiter.local.cluster import LocalCluster
from jupiter.local.report import build_report
from jupiter.local.watch import CycleWatch
from jupiter.orchestrator import SelfImprover
from tests.e2e.cycle import (
    DOMAIN,
    RATIO_MAX,
    RATIO_MIN,
    ROOT,
    WAIT_S,
    check_nothing_lost_or_doubled,
    cluster_of,
    kill_9,
    prepare,
    start,
    until,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClusterConfig:
    monkeypatch.chdir(tmp_path)
    return prepare(tmp_path)


@pytest.fixture
async def cluster(config: ClusterConfig) -> AsyncIterator[LocalCluster]:
    async with cluster_of(config) as cluster:
        await start(cluster)
        yield cluster


async def wait(cluster: LocalCluster, condition: Any, what: str) -> None:
    await cluster.wait_for(condition, what=what, timeout_s=WAIT_S)


async def wait_for_verdict(cluster: LocalCluster) -> VerdictReached:
    await wait(cluster, lambda seen: seen.all(VerdictReached), "the first verdict")
    return cluster.watch.all(VerdictReached)[0]


def made_by(seen: CycleWatch, version: int) -> list[BatchGenerated]:
    return [batch for batch in seen.all(BatchGenerated) if batch.generator_version == version]


async def test_from_documents_to_a_promotion_and_back_again(
    cluster: LocalCluster, config: ClusterConfig, tmp_path: Path
) -> None:
    await publish_from_outside(cluster)
    await wait(cluster, lambda seen: seen.all(BenchmarkFrozen), "a frozen benchmark")
    await wait(cluster, lambda seen: seen.all(ShardCurated), "the first shard")
    await wait(cluster, lambda seen: seen.all(CheckpointSaved), "the first checkpoint")
    verdict = await wait_for_verdict(cluster)

    improver = SelfImprover(cluster.config, None)
    await improver.promote(evaluation_id=verdict.evaluation_id, force=True)
    await wait(
        cluster,
        lambda seen: any(load.version == 2 for load in seen.all(GeneratorLoaded)),
        "the hot reload of version 2",
    )
    link = config.data_dir / "generators" / "current"
    assert link.resolve().name == "generator_v2"
    await wait(cluster, lambda seen: made_by(seen, 2), "a batch of version 2")
    await wait(
        cluster,
        lambda seen: any(shard.generator_version == 2 for shard in seen.all(ShardCurated)),
        "a shard of version 2",
    )

    await improver.rollback_generator()
    await wait(cluster, lambda seen: seen.all(GeneratorRolledBack), "the rollback")
    back = cluster.watch.all(GeneratorRolledBack)[0]
    assert (back.version, back.previous_version) == (1, 2)
    await wait(
        cluster,
        lambda seen: any(load.ledger_sequence == back.ledger_sequence for load in seen.all(GeneratorLoaded)),
        "version 1 to serve again",
    )
    before = len(made_by(cluster.watch, 1))
    await wait(cluster, lambda seen: len(made_by(seen, 1)) > before, "a batch of version 1 again")
    assert link.resolve().name == "generator_v1"
    await check_what_came_from_outside(cluster)
    await check_benchmark_commands(cluster, tmp_path)
    await cluster.drain()
    await check_nothing_lost_or_doubled(cluster)
    await check_report(cluster)


async def check_benchmark_commands(cluster: LocalCluster, tmp_path: Path) -> None:
    """Assert that the benchmark in use is shown, and that another one can be asked for."""
    shown, renewed = tmp_path / "shown.json", tmp_path / "renewed.log"
    with jupiter(cluster.config, shown, "benchmark", "show", "--json") as showing:
        await ended(showing, shown)
    [generation] = json.loads(await asyncio.to_thread(shown.read_text))["generations"]
    [frozen] = cluster.watch.all(BenchmarkFrozen)
    assert (generation["digest"], generation["items"]) == (frozen.digest, frozen.items)
    assert generation["openings"] == 0
    with jupiter(cluster.config, renewed, "benchmark", "renew", "--reason", "a test") as renewing:
        await ended(renewing, renewed)
    assert "generation 2" in await asyncio.to_thread(renewed.read_text)


async def check_report(cluster: LocalCluster) -> None:
    """Assert that the demo's report tells what happened, from the store alone."""
    report = await build_report(cluster.blobs, cluster.bus, cluster.watch, domain=DOMAIN, control="none", wall_s=1.0)
    assert (report["promoted"], report["generator_version"], report["rolled_back_to"]) == (True, 2, 1)
    assert report["batches_by_version"]["1"] > 0
    assert report["batches_by_version"]["2"] > 0
    assert RATIO_MIN <= report["real_ratio_by_tokens"] <= RATIO_MAX
    assert report["hot_reload_s"] > 0
    assert report["lost"] == 0, report["lost_by_kind"]
    for evaluation in report["evaluations"]:
        low, high = evaluation["confidence_interval"]
        assert evaluation["n"] > 0
        assert low <= evaluation["difference"] <= high
        assert cluster.blobs.stat(evaluation["objects"]["report"]) is not None
    assert any(evaluation["verdict"] and evaluation["reasons"] for evaluation in report["evaluations"])


def from_outside() -> list[dict[str, str]]:
    """So many that every shard is likely to hold one."""
    liquids = ("water", "milk", "brine", "syrup", "vinegar", "broth")
    units = ("hectopascal", "atmospheres", "bar", "torr", "psi")
    return [
        {
            "text": f"Return the boiling point of {liquid} at a pressure given in {unit}, in degrees Celsius.",
            "source": f"urn:kitchen:boiling:{liquid}:{unit}",
            "title": f"kitchen.boil_{liquid}_{unit}",
            "kind": "api",
            "split": "training",
        }
        for liquid in liquids
        for unit in units
    ]


async def publish_from_outside(cluster: LocalCluster) -> None:
    """Publish documents as any NATS client does, and two things that are none."""
    client = await nats.connect(cluster.config.nats.url)
    for document in from_outside():
        await client.publish(f"documents.{DOMAIN}", json.dumps(document).encode())
    await client.publish(f"documents.{DOMAIN}", b'{"text": "no source"}')
    await client.publish(f"documents.{DOMAIN}", b"\xff not even text")
    await client.drain()


async def check_what_came_from_outside(cluster: LocalCluster) -> None:
    """Assert that the documents are accepted and reach a shard, and the others the dead letters."""
    sources = {document["source"] for document in from_outside()}

    def accepted(seen: CycleWatch) -> dict[str, str]:
        return {event.source: event.document_id for event in seen.all(DocumentAccepted) if event.source in sources}

    await wait(cluster, lambda seen: len(accepted(seen)) == len(sources), "the documents to be accepted")
    ids = set(accepted(cluster.watch).values())
    read: dict[str, bool] = {}

    def in_a_shard(seen: CycleWatch) -> bool:
        for shard in seen.all(ShardCurated):
            if shard.shard_id not in read:
                details = manifests.read(cluster.blobs, shard.manifest_key).manifest.details
                read[shard.shard_id] = bool(ids & set(details["real_documents"]))
        return any(read.values())

    await wait(cluster, in_a_shard, "a shard that holds one of the documents")
    letters = await cluster.bus.dead_letters()
    assert len(letters) == 2
    assert all(letter.subject == f"documents.{DOMAIN}" and letter.reason for letter in letters)


async def test_kill_9_after_every_step_of_the_commit_rule(config: ClusterConfig, tmp_path: Path) -> None:
    """Each service dies once after each step, all of them in the same cycle: the dead find others dead."""
    # The trainer reads its shards as a log and acks nothing, so that one step does not exist for it.
    without_ack = frozenset({"blobs", "manifest", "event"})
    steps = {
        **dict.fromkeys(("generator", "curator", "evaluator"), without_ack | {"ack"}),
        "trainer": without_ack,
    }
    markers = {service: tmp_path / f"died-{service}" for service in steps}
    crashes = {
        service: {"JUPITER_CRASH_AFTER": ",".join(after), "JUPITER_CRASH_MARKER": str(markers[service])}
        for service, after in steps.items()
    }

    def died(service: str) -> list[str]:
        return markers[service].read_text().split() if markers[service].exists() else []

    async with cluster_of(config, **crashes) as cluster:
        await start(cluster)
        await until(lambda: all(set(died(name)) == steps[name] for name in steps), what="every death")
        evaluations = len(cluster.watch.all(EvaluationCompleted))
        await wait_for_verdict(cluster)
        await wait(
            cluster,
            lambda seen: len(seen.all(EvaluationCompleted)) > evaluations,
            "the cycle to go on after the crashes",
        )
        await cluster.drain()
        await check_nothing_lost_or_doubled(cluster)
        deaths = Counter(notice.name for notice in cluster.events if notice.what == "died")
    assert deaths == {service: len(after) for service, after in steps.items()}


def is_back(cluster: LocalCluster, name: str) -> bool:
    process = cluster.processes[name]
    return process.restarts == 1 and process.state == "ready"


async def test_kill_9_of_every_process_while_it_works(cluster: LocalCluster) -> None:
    await wait(cluster, lambda seen: seen.all(ShardCurated), "the first shard")
    for name in cluster.processes:
        kill_9(cluster, name)
        await until(lambda name=name: is_back(cluster, name), what=f"{name} to be back")  # type: ignore[misc]
    shards = len(cluster.watch.all(ShardCurated))
    await wait(cluster, lambda seen: len(seen.all(ShardCurated)) > shards, "a shard after all were killed")
    checkpoints = len(cluster.watch.all(CheckpointSaved))
    await wait(cluster, lambda seen: len(seen.all(CheckpointSaved)) > checkpoints, "a checkpoint after all were killed")
    await wait_for_verdict(cluster)
    said = [notice.text for notice in cluster.events if notice.what == "died"]
    assert [text.split()[0] for text in said] == list(cluster.processes)
    await cluster.drain()
    await check_nothing_lost_or_doubled(cluster)


async def test_a_candidate_corrupted_after_its_evaluation_is_rolled_back_while_the_old_version_serves(
    cluster: LocalCluster,
) -> None:
    verdict = await wait_for_verdict(cluster)
    evaluation = next(
        event for event in cluster.watch.all(EvaluationCompleted) if event.evaluation_id == verdict.evaluation_id
    )
    checkpoint = next(
        event for event in cluster.watch.all(CheckpointSaved) if event.checkpoint_id == evaluation.checkpoint_id
    )
    weights = manifests.read(cluster.blobs, checkpoint.manifest_key).manifest.file("model/model.safetensors")
    data = bytearray(await asyncio.to_thread(cluster.blobs.get, weights.key))
    data[-1] ^= 1
    await asyncio.to_thread(cluster.blobs.put, weights.key, bytes(data))

    await SelfImprover(cluster.config, None).promote(evaluation_id=verdict.evaluation_id, force=True)
    await wait(cluster, lambda seen: seen.all(GeneratorRolledBack), "the automatic rollback")
    # The channels are followed side by side: what made the controller roll back may be read after the rollback.
    await wait(cluster, lambda seen: seen.all(GeneratorLoadFailed), "the refusal to load")
    assert [event.version for event in cluster.watch.all(GeneratorPromoted)] == [1, 2]
    assert cluster.watch.all(GeneratorLoadFailed)[0].version == 2
    assert not [load for load in cluster.watch.all(GeneratorLoaded) if load.version == 2]
    live = current(await asyncio.to_thread(read_ledger, cluster.blobs, DOMAIN))
    assert live is not None
    assert (live.version, live.action) == (1, "rolled_back")
    before = len(made_by(cluster.watch, 1))
    await wait(cluster, lambda seen: len(made_by(seen, 1)) > before, "version 1 to generate on")
    assert not made_by(cluster.watch, 2)


@contextlib.contextmanager
def jupiter(config: ClusterConfig, log: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command as a user would, in a process of its own; a test that fails leaves none behind."""
    environment = {**os.environ, **settings_as_environment(config), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "jupiter.cli", *arguments]
    with (
        log.open("ab") as output,
        subprocess.Popen(command, stdout=output, stderr=output, env=environment) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


async def ended(process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for the command's good end; a bad one shows what it said."""
    code = await asyncio.to_thread(process.wait, WAIT_S)
    assert code == 0, await asyncio.to_thread(log.read_text)


async def test_ctrl_c_drains_and_the_next_start_goes_on(config: ClusterConfig, tmp_path: Path) -> None:
    def state() -> dict[str, Any]:
        path = config.data_dir / "pipeline_state.json"
        return dict(json.loads(path.read_bytes())) if path.exists() else {"current_epoch": 0}

    def has(process: subprocess.Popen[bytes], condition: Callable[[], bool]) -> Callable[[], bool]:
        return lambda: condition() or process.poll() is not None

    log = tmp_path / "up.log"
    with jupiter(config, log, "up") as first:
        await until(has(first, lambda: "everything runs" in log.read_text()), what="everything to run")
        with jupiter(config, log, "publish", "documents.jsonl") as publishing:
            await ended(publishing, log)
        await until(has(first, lambda: state()["current_epoch"] >= 1), what="the first evaluation")
        first.send_signal(signal.SIGINT)
        await ended(first, log)
    assert "the next `jupiter up` goes on from here" in log.read_text()
    epochs = state()["current_epoch"]
    assert epochs >= 1

    with jupiter(config, log, "up") as second:
        await until(has(second, lambda: state()["current_epoch"] > epochs), what="the next evaluation")
        second.send_signal(signal.SIGTERM)
        await ended(second, log)
    steps = [epoch["step"] for epoch in state()["epochs"]]
    assert steps == sorted(set(steps)), "an evaluation was done again"

    async with LocalCluster(config, services=()) as servers:
        await servers.start()
        await until(lambda: len(servers.watch.all(EvaluationCompleted)) >= len(steps), what="the streams to be read")
        await check_nothing_lost_or_doubled(servers)
