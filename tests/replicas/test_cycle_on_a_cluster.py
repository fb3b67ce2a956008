"""The whole cycle on a NATS cluster of three, with two of every service but the trainer: leaders and services die."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from jupiter.config import ClusterConfig
from jupiter.events import (
    BatchGenerated,
    CheckpointSaved,
    EvaluationCompleted,
    Event,
    GenerationRequested,
    GeneratorLoaded,
    GeneratorPromoted,
    ShardCurated,
    VerdictReached,
)
from jupiter.local.cluster import LocalCluster
from jupiter.local.endpoints import choose_ports
from jupiter.local.processes import ProcessSpec
from jupiter.local.services import service_spec
from jupiter.orchestrator import SelfImprover
from tests.e2e.cycle import check_nothing_lost_or_doubled, environment_of_services, kill_9, prepare, start
from tests.replicas.test_nats_cluster import leader_of
from tests.servers import NatsCluster, RedisServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

WAIT_S = 600.0
TWICE = ("curator", "evaluator", "controller")
"""Besides the generators, of which `local.generators` starts two."""


class ReplicatedCluster(LocalCluster):
    """The local cluster with its NATS elsewhere, and a second instance of the services that run once in it."""

    def __init__(self, config: ClusterConfig, nats: NatsCluster) -> None:
        environment = environment_of_services()
        super().__init__(
            config, environment={**environment, **{f"generator-{n}": environment["generator"] for n in (1, 2)}}
        )
        self._nats = nats

    @property
    def config(self) -> ClusterConfig:
        return super().config.model_copy(update={"nats": self._nats.section(ack_wait_s=10.0)})

    def _launch(self, spec: ProcessSpec) -> None:
        if spec.name != "nats":
            super()._launch(spec)

    async def add_second_instances(self) -> None:
        names = [f"{service}-2" for service in TWICE]
        ports = choose_ports((*names, "api"), remembered={}, wanted={})
        for service, name in zip(TWICE, names, strict=True):
            extra = {**self._environment[service], "JUPITER_CONTROLLER__PORT": str(ports["api"])}
            self._launch(service_spec(name, service, config=self.config, ports=ports, extra=extra))
        await asyncio.gather(*(self.processes[name].until_ready(timeout_s=WAIT_S) for name in names))


async def one_more(cluster: LocalCluster, kind: type[Event], why: str) -> None:
    before = len(cluster.watch.all(kind))
    await cluster.wait_for(lambda seen: len(seen.all(kind)) > before, what=f"{kind.__name__} {why}", timeout_s=WAIT_S)


async def test_leaders_and_services_die_and_the_cycle_goes_on(
    nats_cluster: NatsCluster, redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = prepare(tmp_path)
    config = config.model_copy(
        update={
            "local": config.local.model_copy(update={"generators": 2}),
            "curator": config.curator.model_copy(update={"redis_url": redis_server.url}),
        }
    )
    cluster = ReplicatedCluster(config, nats_cluster)
    async with cluster:
        await start(cluster)
        await cluster.add_second_instances()
        await one_more(cluster, CheckpointSaved, "with two of everything")
        for channel, kind in (("batches", BatchGenerated), ("shards", ShardCurated), ("checkpoints", CheckpointSaved)):
            leader = nats_cluster.nodes[await leader_of(nats_cluster, channel)]
            leader.kill9()
            await one_more(cluster, kind, f"without {leader.name}, which led {channel}")
            leader.launch()
            await leader.until_ready()

        await cluster.wait_for(lambda seen: seen.all(VerdictReached), what="a verdict", timeout_s=WAIT_S)
        verdict = cluster.watch.all(VerdictReached)[0]
        await SelfImprover(cluster.config, None).promote(evaluation_id=verdict.evaluation_id, force=True)
        await cluster.wait_for(
            lambda seen: (
                {load.instance for load in seen.all(GeneratorLoaded) if load.version == 2}
                == {"generator-1", "generator-2"}
            ),
            what="both generators to serve version 2",
            timeout_s=WAIT_S,
        )
        for name in ("generator-1", "curator", "evaluator", "controller"):
            kill_9(cluster, name)
        for after in (BatchGenerated, ShardCurated, EvaluationCompleted):
            await one_more(cluster, after, "after one of each was killed")
        await cluster.drain()
        await check_nothing_lost_or_doubled(cluster)
        asked = Counter(event.sequence for event in cluster.watch.all(GenerationRequested))
        assert max(asked.values()) == 1, "a request was issued twice"
        assert [event.version for event in cluster.watch.all(GeneratorPromoted)] == [1, 2]
        assert await cluster.bus.dead_letters() == []
