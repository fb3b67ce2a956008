"""The node files on two engines with a network between them: work goes on where a cable was pulled for a minute.

`make test-nodes NODE_ENGINE=path`: a script that starts engines in network namespaces (`start`, `load`, `exec`, `cut`,
`join`, `stop`). The images are those that `make test-compose` has built.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from jupiter.blobs.s3 import S3Blobs
from jupiter.bus.jetstream import JetStreamBus
from jupiter.config.sections import NatsSection, S3Section
from jupiter.events import BatchGenerated, CheckpointSaved, GenerationRequested, ShardCurated
from jupiter.local.losses import count_lost
from jupiter.local.watch import CycleWatch
from tests.compose.stack import CYCLE_S, DOMAIN, UP_S, Api, Stack, publish, scraped, until

NODE_ENGINE = os.environ.get("NODE_ENGINE", "")
CONTROL, WORK = ("control", 2), ("work", 3)
ADDRESS, WORK_ADDRESS = "198.18.7.2", "198.18.7.3"
# The ports of the files: both on one node.
METRICS = {"generator": f"{WORK_ADDRESS}:9100", "trainer": f"{WORK_ADDRESS}:9101"}
CUT_S = 60
BATCHES_AFTER = 2
pytestmark = pytest.mark.timeout(UP_S + CYCLE_S)

IMAGES = {
    "control": ("controller", "curator", "evaluator", "seaweedfs"),
    "work": ("generator", "trainer"),
}


def engine(*arguments: str) -> None:
    subprocess.run([NODE_ENGINE, *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def engines() -> Iterator[None]:
    if not NODE_ENGINE:
        pytest.fail("NODE_ENGINE must name the script that starts engines (see this module)")
    with ExitStack() as undo:
        bridged("-I")
        undo.callback(bridged, "-D")
        for name, number in (CONTROL, WORK):
            # Before the start: stopping removes what one that failed has left as well.
            undo.callback(engine, "stop", name)
            engine("start", name, str(number))
            engine("load", name, *(f"jupiter/{image}:dev" for image in IMAGES[name]))
        engine("load", "control", "nats:2.12-alpine", "prom/prometheus:v3.5.0")
        yield


def bridged(change: str) -> None:
    """Let the host pass packets between the nodes: its own engine drops what it does not know, bridged packets too."""
    subprocess.run(["iptables", "-w", change, "FORWARD", "-i", "ne0", "-o", "ne0", "-j", "ACCEPT"], check=True)


@pytest.fixture(scope="module")
def cluster(engines: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Stack]]:
    """Control on one node; generator and trainer on the other, with just their own secrets."""
    directory = tmp_path_factory.mktemp("nodes")
    control = Stack(
        project="control",
        directory=directory,
        files=("node-control.yaml", "seaweedfs.yaml"),
        environment={"BIND_ADDRESS": ADDRESS, "PROMETHEUS_TARGETS": str(directory / "targets")},
        prefix=(NODE_ENGINE, "exec", "control"),
    )
    control.make_secrets()
    (directory / "targets").mkdir(mode=0o755)
    (directory / "targets" / "nodes.yml").write_text(json.dumps([{"targets": list(METRICS.values())}]))
    own = directory / "work-secrets"
    own.mkdir(mode=0o700)
    for name in ("generator.nkey", "generator.s3", "trainer.nkey", "trainer.s3"):
        (own / name).write_text((control.secrets / name).read_text())
        (own / name).chmod(0o444)
    there = {"NATS_URL": f"nats://{ADDRESS}:4222", "S3_ENDPOINT": f"{ADDRESS}:9000", "SECRETS_DIR": str(own)}
    stacks = {"control": control}
    for service in METRICS:
        stacks[service] = Stack(
            project=service,
            directory=directory,
            files=(f"node-{service}.yaml",),
            environment={
                **control.environment,
                **there,
                "BIND_ADDRESS": WORK_ADDRESS,
                f"{service.upper()}_INSTANCE": f"{service}-1",
            },
            prefix=(NODE_ENGINE, "exec", "work"),
        )
    try:
        for stack in stacks.values():
            stack.compose("up", "-d")
        for stack in stacks.values():
            stack.up()
        yield stacks
    finally:
        for stack in stacks.values():
            stack.down()


async def test_a_minute_without_the_network_loses_and_doubles_nothing(cluster: dict[str, Stack]) -> None:
    control = cluster["control"]
    secrets = control.secrets
    api = Api(url=f"http://{ADDRESS}:8400", key=(secrets / "api-key-read").read_text().strip())
    seed = (secrets / "publisher.nkey").read_text().strip()
    await in_thread(lambda: publish(f"nats://{ADDRESS}:4222", seed))
    section = NatsSection(
        url=f"nats://{ADDRESS}:4222", nkey_seed=(secrets / "controller.nkey").read_text().strip(), manage_streams=False
    )
    bus = JetStreamBus(section, source="jupiter/controller/test")
    await bus.start()
    try:
        async with CycleWatch(bus, DOMAIN) as watch:
            await watch.until(lambda seen: bool(seen.all(ShardCurated)), what="a shard", timeout_s=CYCLE_S)
            await in_thread(partial(until, every_node_scraped, what="metrics of both nodes", timeout_s=UP_S))
            await in_thread(lambda: until(lambda: generating(api), what="work under way", timeout_s=CYCLE_S))
            engine("cut", "work")
            await in_thread(lambda: time.sleep(CUT_S))
            curated, saved = len(watch.all(ShardCurated)), len(watch.all(CheckpointSaved))
            engine("join", "work")
            await watch.until(
                lambda seen: len(seen.all(ShardCurated)) >= curated + BATCHES_AFTER,
                what="generator and curator going on after the cut",
                timeout_s=CYCLE_S,
            )
            await watch.until(
                lambda seen: len(seen.all(CheckpointSaved)) > saved,
                what="the trainer going on after the cut",
                timeout_s=CYCLE_S,
            )
            await nothing_lost_or_doubled(bus, watch)
            await every_shard_is_announced(secrets, watch)
    finally:
        await bus.close()
    for service in ("generator", "trainer"):
        await in_thread(partial(until, partial(healthy, cluster[service]), what="health", timeout_s=UP_S))


def every_node_scraped() -> bool:
    here = [f"{service}:9100" for service in ("controller", "curator", "evaluator")]
    return scraped(f"http://{ADDRESS}:9090") == dict.fromkeys([*here, *METRICS.values()], "1")


async def every_shard_is_announced(secrets: Path, watch: CycleWatch) -> None:
    """The shards in the store and their events are the same; a shard is stored a moment before it is announced."""
    key = (secrets / "controller.s3").read_text().strip()
    blobs = S3Blobs(S3Section(endpoint=f"{ADDRESS}:9000", access_key="jupiter-controller", secret_key=key))
    announced = {event.manifest_key for event in watch.all(ShardCurated)}
    listed = await in_thread(lambda: [info.key for info in blobs.list(f"shards/{DOMAIN}/")])
    stored = {key for key in listed if key.endswith("/manifest.json")}
    assert announced <= stored
    await watch.until(
        lambda seen: stored <= {event.manifest_key for event in seen.all(ShardCurated)},
        what="every stored shard announced",
        timeout_s=UP_S,
    )


def generating(api: Api) -> bool:
    stages = {stage["name"]: stage["state"] for stage in api.get("/status")["stages"]}
    return bool(stages["generation"] == "generating")


def healthy(stack: Stack) -> bool:
    return set(stack.states().values()) == {"healthy"}


async def nothing_lost_or_doubled(bus: JetStreamBus, watch: CycleWatch) -> None:
    for kind, identity in (
        (GenerationRequested, "request_id"),
        (BatchGenerated, "batch_id"),
        (ShardCurated, "batch_id"),
        (CheckpointSaved, "step"),
    ):
        counts: Counter[Any] = Counter(getattr(event, identity) for event in watch.all(kind))
        assert not [name for name, count in counts.items() if count > 1], f"{kind.__name__} twice"
    lost = await count_lost(bus, domain=DOMAIN)
    assert not any(lost.values()), lost


async def in_thread(action: Callable[[], Any]) -> Any:
    return await asyncio.to_thread(action)
