"""A whole turn of the demo around a real controller, with the other services played by hand and servers in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from jupiter import keys, manifests
from jupiter.blobs import Blobs
from jupiter.bus import Bus
from jupiter.config import ClusterConfig
from jupiter.config.sections import TelemetrySection
from jupiter.controller.wiring import application
from jupiter.events import BatchGenerated, VerdictReached
from jupiter.health import serving
from jupiter.ledger import LedgerEntry, flips
from jupiter.local.demo import run_demo
from jupiter.local.report import READ_FROM
from jupiter.local.watch import CycleWatch
from jupiter.service import running
from tests.unit.controller.cases import DOMAIN, equal, items
from tests.unit.controller.cycle import BATCH_ITEMS, Cycle, eventually

WAIT_S_MAX = 0.5
"""For what never happens."""


class MemoryCluster:
    """The demo's cluster, without processes. `patience_s` cuts every wait short."""

    def __init__(self, cycle: Cycle, watch: CycleWatch, *, port: int, patience_s: float | None = None) -> None:
        controller = cycle.config.controller.model_copy(update={"port": port})
        self.config: ClusterConfig = cycle.config.model_copy(update={"controller": controller})
        self.bus: Bus = cycle.bus
        self.blobs: Blobs = cycle.blobs
        self.watch = watch
        self.drained = False
        self._patience_s = patience_s

    async def start(self) -> None:
        """The controller runs already."""

    async def drain(self) -> None:
        self.drained = True

    async def wait_for(self, condition: Callable[[CycleWatch], object], *, what: str, timeout_s: float) -> None:
        await self.watch.until(
            lambda seen: bool(condition(seen)), what=what, timeout_s=min(timeout_s, self._patience_s or timeout_s)
        )


class LateEvaluations(CycleWatch):
    """Reads the evaluations some time after the verdicts about them."""

    async def _follow(self, channel: str) -> None:
        if channel == "evaluations":
            async for entry in self._bus.read(keys.subject("verdicts", self._domain)):
                if isinstance(entry.event, VerdictReached):
                    break
            await asyncio.sleep(0.2)
        await super()._follow(channel)


@asynccontextmanager
async def around(
    cycle: Cycle, *, patience_s: float | None = None, watch: type[CycleWatch] = CycleWatch
) -> AsyncIterator[MemoryCluster]:
    """A running controller whose API is served on a port of this machine, and the cluster around it."""
    runtime = cycle.runtime()
    parts = await cycle.parts(runtime)
    section = TelemetrySection(host="127.0.0.1", port=0)
    async with (
        running(runtime, parts),
        serving(application(parts.deps), section, what="api") as port,
        watch(cycle.bus, DOMAIN) as seen,
    ):
        yield MemoryCluster(cycle, seen, port=port, patience_s=patience_s)


async def curate(cycle: Cycle, batch: BatchGenerated) -> None:
    """What the curator makes of a batch, with a manifest that holds figures."""
    manifests.commit(
        cycle.blobs,
        prefix=keys.shard_prefix(DOMAIN, batch.batch_id),
        kind="shard",
        domain=DOMAIN,
        work_id=batch.batch_id,
        files=(),
        details={
            "tokens": 1_000,
            "real_tokens": 350,
            "accepted": 30,
            "candidates": BATCH_ITEMS,
            "dropped": {"grounding": BATCH_ITEMS - 30},
        },
    )
    await cycle.curate(batch)


async def until_shards(cycle: Cycle) -> LedgerEntry:
    """Play the other services up to the first shard; return the base's entry in the ledger."""
    await cycle.import_base()
    await eventually(cycle.ledger)
    base = cycle.ledger()[0]
    await cycle.load(base)
    await cycle.freeze_benchmark()
    await curate(cycle, await cycle.make_batch())
    return base


async def a_good_student(cycle: Cycle) -> None:
    """Play the others until the rollback is loaded."""
    await until_shards(cycle)
    await cycle.answer(await cycle.evaluate(await cycle.save_checkpoint(100)))
    await eventually(lambda: len(flips(cycle.ledger())) == 2)
    await cycle.load(flips(cycle.ledger())[-1])
    await curate(cycle, await cycle.make_batch())
    await eventually(lambda: len(flips(cycle.ledger())) == 3)
    await cycle.load(flips(cycle.ledger())[-1])


async def a_student_that_learnt_nothing(cycle: Cycle) -> None:
    await until_shards(cycle)
    await cycle.evaluate(await cycle.save_checkpoint(100), items(equal))


async def a_student_that_cannot_be_scored(cycle: Cycle) -> None:
    """The evaluator buries the checkpoint; nothing is ever scored."""
    await until_shards(cycle)
    await cycle.save_checkpoint(100)
    work = cycle.bus.consume(f"checkpoints.{DOMAIN}", durable="evaluator", max_ack_pending=1)
    delivery = await anext(work)
    await cycle.bus.bury(delivery, service="evaluator", reason="the weights are corrupt")
    await delivery.term()


async def a_student_whose_version_is_never_loaded(cycle: Cycle) -> None:
    await until_shards(cycle)
    await cycle.answer(await cycle.evaluate(await cycle.save_checkpoint(100)))


async def demonstrated(
    cluster: MemoryCluster, playing: asyncio.Task[None], *, control: str = "none"
) -> tuple[Any, list[str]]:
    """Run the demo beside the others; a fault of theirs ends it."""
    said: list[str] = []
    trainer = cluster.config.trainer.model_copy(update={"control": control})
    config = cluster.config.model_copy(update={"trainer": trainer})
    demo = asyncio.create_task(run_demo(cluster, config, rounds_max=1, say=said.append))
    await asyncio.wait({demo, playing}, return_when=asyncio.FIRST_EXCEPTION)
    if playing.done():
        playing.result()
    else:
        playing.cancel()
        with suppress(asyncio.CancelledError):
            await playing
    return await demo, said


@pytest.mark.parametrize("watch", [CycleWatch, LateEvaluations])
async def test_a_whole_turn_is_told_and_every_figure_names_what_it_was_read_from(
    tmp_path: Path, watch: type[CycleWatch]
) -> None:
    cycle = Cycle(tmp_path)
    async with around(cycle, watch=watch) as cluster:
        outcome, said = await demonstrated(cluster, asyncio.create_task(a_good_student(cycle)))
    assert outcome.as_expected, outcome.summary
    assert cluster.drained
    report = json.loads(json.dumps(outcome.report))
    assert (report["promoted"], report["generator_version"], report["rolled_back_to"]) == (True, 2, 1)
    assert report["batches_by_version"] == {"1": 1, "2": 1}
    assert (report["real_ratio_by_tokens"], report["drops_by_reason"]) == (0.35, {"grounding": 20})
    assert (report["lost"], report["hot_reload_s"]) == (0, 0.1)
    assert report["never_happened"] is None
    steps = ("serves as generator v1", "benchmark frozen", "→ PROMOTE", "v2 is in the ledger", "rolled back to v1")
    places = [next(place for place, line in enumerate(said) if step in line) for step in steps]
    assert places == sorted(places)
    check_sources(report, cluster.blobs)


def check_sources(report: dict[str, Any], blobs: Blobs) -> None:
    """Assert that every figure says where it was read, and that this is there."""
    about = {"domain", "control", "as_expected", "not_as_expected", "never_happened", "read_from", "objects"}
    assert set(report) - about - {"evaluations", "not_evaluated", "wall_s"} == set(READ_FROM)
    objects = report["objects"]
    assert set(report["read_from"].values()) == set(objects)
    batches = [key for found in objects["batches"].values() for key in found]
    for key in (*objects["shards"], *batches, *objects["ledger"], *report["evaluations"][0]["objects"].values()):
        assert blobs.stat(key) is not None, key
    [reload] = objects["hot_reload"]
    assert (reload["subject"], reload["seconds"]) == (f"loads.{DOMAIN}", 0.1)
    assert {version: len(found) for version, found in objects["batches"].items()} == report["batches_by_version"]


async def test_a_control_is_refused_by_the_gate_and_its_reasons_are_told(tmp_path: Path) -> None:
    cycle = Cycle(tmp_path)
    async with around(cycle) as cluster:
        playing = asyncio.create_task(a_student_that_learnt_nothing(cycle))
        outcome, said = await demonstrated(cluster, playing, control="shuffled")
    assert outcome.as_expected, outcome.summary
    assert outcome.report["promoted"] is False
    [evaluation] = outcome.report["evaluations"]
    assert evaluation["verdict"] in {"HOLD", "REJECT"}
    assert evaluation["reasons"]
    assert any(line.startswith("    ") for line in said)


async def test_a_control_that_could_not_be_evaluated_was_not_refused(tmp_path: Path) -> None:
    cycle = Cycle(tmp_path)
    async with around(cycle) as cluster:
        playing = asyncio.create_task(a_student_that_cannot_be_scored(cycle))
        outcome, said = await demonstrated(cluster, playing, control="shuffled")
    assert not outcome.as_expected
    assert "is no refusal: INVALID" in outcome.summary
    [found] = outcome.report["not_evaluated"]
    assert (found["verdict"], found["step"]) == ("INVALID", 100)
    assert "the weights are corrupt" in found["reasons"][0]
    assert cluster.blobs.stat(found["objects"]["verdict"]) is not None
    assert "round 1: no evaluation could be made → INVALID" in said


async def test_a_student_that_learnt_nothing_is_no_demo(tmp_path: Path) -> None:
    cycle = Cycle(tmp_path)
    async with around(cycle) as cluster:
        outcome, _ = await demonstrated(cluster, asyncio.create_task(a_student_that_learnt_nothing(cycle)))
    assert not outcome.as_expected
    assert outcome.summary.startswith("no promotion: see the gate's reasons")


async def test_what_never_happened_stands_in_the_report(tmp_path: Path) -> None:
    cycle = Cycle(tmp_path)
    async with around(cycle, patience_s=WAIT_S_MAX) as cluster:
        playing = asyncio.create_task(a_student_whose_version_is_never_loaded(cycle))
        outcome, said = await demonstrated(cluster, playing)
    assert not outcome.as_expected
    assert cluster.drained
    assert "in vain" in outcome.report["never_happened"]
    assert any(line.startswith("giving up: waited") for line in said)
    assert outcome.report["as_expected"] is False
