"""Twenty rounds of generation in which diversity collapses: the breaker trips, acts, is seen, and lifts itself.

The five services are real processes on real servers; only the words of the tiny model are written by a rule, which for
a while is temperature 0 on one prompt.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from jupiter import manifests
from jupiter.cli.progress import milestones
from jupiter.config import ClusterConfig
from jupiter.errors import JupiterError
from jupiter.events import DiversityAlarmCleared, DiversityAlarmRaised, ShardCurated, VerdictReached
from jupiter.local.cluster import LocalCluster
from jupiter.orchestrator import SelfImprover
from tests.e2e.collapsing_engine import COLLAPSE_VARIABLE
from tests.e2e.cycle import (
    RATIO_MAX,
    RATIO_MIN,
    WAIT_S,
    check_nothing_lost_or_doubled,
    cluster_of,
    prepare,
    start,
    until,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

ROUNDS = 20
HEALTHY = 7
"""The reference of four, and windows enough to see that nothing is wrong."""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClusterConfig:
    monkeypatch.chdir(tmp_path)
    made = prepare(tmp_path)
    engine = made.generator.model_copy(update={"engine": "tests.e2e.collapsing_engine"})
    return made.model_copy(update={"generator": engine})


@pytest.fixture
async def cluster(config: ClusterConfig, tmp_path: Path) -> AsyncIterator[LocalCluster]:
    async with cluster_of(config, generator={COLLAPSE_VARIABLE: str(tmp_path / "collapse")}) as cluster:
        await start(cluster)
        yield cluster


async def wait(cluster: LocalCluster, kind: type[Any], count: int, what: str) -> Sequence[Any]:
    await cluster.wait_for(lambda seen: len(seen.all(kind)) >= count, what=what, timeout_s=WAIT_S)
    return cluster.watch.all(kind)


def details_of(cluster: LocalCluster, shard: ShardCurated) -> dict[str, Any]:
    return dict(manifests.read(cluster.blobs, shard.manifest_key, sha256=shard.manifest_sha256).manifest.details)


async def test_a_collapse_trips_the_breaker_which_acts_is_seen_and_lifts_itself(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    await wait(cluster, ShardCurated, HEALTHY, "the healthy rounds")
    [verdict, *_] = await wait(cluster, VerdictReached, 1, "a verdict")
    assert cluster.watch.all(DiversityAlarmRaised) == []

    (tmp_path / "collapse").touch()
    began = len(cluster.watch.all(ShardCurated))
    [raised, *_] = await wait(cluster, DiversityAlarmRaised, 1, "the diversity alarm")
    shards = cluster.watch.all(ShardCurated)
    tripped = [shard.shard_id for shard in shards].index(raised.shard_id)
    # Two requests were in flight when it began; the rest is the breaker's own patience.
    assert began <= tripped <= began + 8
    assert raised.alarms
    assert all("bound" in line for line in raised.alarms)

    await check_it_is_seen(cluster, raised)
    with pytest.raises(JupiterError, match="diversity alarm"):
        await SelfImprover(cluster.config, None).promote(evaluation_id=verdict.evaluation_id)
    await check_more_real_data(cluster, raised)

    (tmp_path / "collapse").unlink()
    [cleared, *_] = await wait(cluster, DiversityAlarmCleared, 1, "the alarm to lift itself")
    assert cleared.figures
    await wait(cluster, ShardCurated, ROUNDS, "twenty rounds")
    await check_the_real_share_is_back(cluster, cleared)
    status = await SelfImprover(cluster.config, None).status()
    assert status["diversity_alarm"] is None
    assert len(cluster.watch.all(DiversityAlarmRaised)) == 1
    await cluster.drain()
    await check_nothing_lost_or_doubled(cluster)


async def check_it_is_seen(cluster: LocalCluster, raised: DiversityAlarmRaised) -> None:
    """Assert that the API's status, and the lines that `jupiter status` prints of it, tell the alarm."""
    improver = SelfImprover(cluster.config, None)
    seen: dict[str, Any] = {}

    async def told() -> bool:
        seen.update(await improver.status())
        return seen["diversity_alarm"] is not None

    await until_told(told)
    assert tuple(seen["diversity_alarm"]["alarms"]) == raised.alarms
    printed = "\n".join(milestones(seen))
    assert "DIVERSITY ALARM" in printed
    assert all(line in printed for line in raised.alarms)


async def until_told(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not await condition():  # noqa: ASYNC110 - the condition is another process's doing
            await asyncio.sleep(0.1)


async def check_more_real_data(cluster: LocalCluster, raised: DiversityAlarmRaised) -> None:
    """Assert that shards are mixed for 40 % real data, and name the alarm."""
    target = cluster.config.diversity.alarm_real_ratio

    def under_alarm() -> list[dict[str, Any]]:
        newest = cluster.watch.all(ShardCurated)[-3:]
        return [found for shard in newest if (found := details_of(cluster, shard))["alarm"] == raised.shard_id]

    await until(under_alarm, what="a shard that was mixed under the alarm")
    for details in under_alarm():
        assert details["real_ratio_target"] == target > cluster.config.curator.real_ratio
        if details["tokens"]:
            assert RATIO_MIN <= details["real_ratio"] <= RATIO_MAX


async def check_the_real_share_is_back(cluster: LocalCluster, cleared: DiversityAlarmCleared) -> None:
    def mixed_as_configured() -> bool:
        newest = details_of(cluster, cluster.watch.all(ShardCurated)[-1])
        return newest["alarm"] is None and newest["real_ratio_target"] == cluster.config.curator.real_ratio

    await until(mixed_as_configured, what=f"a shard mixed as configured after {cleared.shard_id[:8]}")
