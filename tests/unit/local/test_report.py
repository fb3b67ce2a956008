"""The demo's report, read back from a store and streams in memory."""

from __future__ import annotations

from pathlib import Path

from jupiter.events import VerdictReached
from jupiter.local.report import build_report
from jupiter.local.watch import CycleWatch
from tests.unit.controller.cases import DOMAIN, equal, items
from tests.unit.controller.test_promotion import advanced, registered, seen_through


async def test_an_evaluation_stands_there_with_every_stage_it_came_to(tmp_path: Path) -> None:
    cycle = await registered(tmp_path)
    refused = await cycle.evaluate(await cycle.save_checkpoint(50), items(equal))
    await advanced(cycle)
    promoted = await cycle.evaluate(await cycle.save_checkpoint(100))
    await seen_through(cycle, promoted)
    async with CycleWatch(cycle.bus, DOMAIN) as watch:
        await watch.until(lambda seen: len(seen.all(VerdictReached)) == 2, what="two verdicts", timeout_s=10)
        report = await build_report(cycle.blobs, cycle.bus, watch, domain=DOMAIN, control="none", wall_s=1.0)
    assert (report["promoted"], report["generator_version"], report["sealed_openings"]) == (True, 2, 1)
    first, second = report["evaluations"]
    assert (first["evaluation_id"], first["confirmation"], first["shadow"]) == (refused.evaluation_id, None, None)
    assert first["verdict"] in {"HOLD", "REJECT"}
    assert second["verdict"] == "PROMOTE"
    assert second["n"] == len(promoted.items)
    sealed = second["confirmation"]
    assert (sealed["opening"], sealed["n"]) == (1, len(cycle.scored[promoted.evaluation_id]) - len(promoted.items))
    composites = sealed["candidate"]["composite"] - sealed["generator"]["composite"]
    assert abs(sealed["difference"] - composites) < 1e-9
    low, high = sealed["confidence_interval"]
    assert low < sealed["difference"] < high
    assert (second["shadow"]["candidate"]["accepted"], second["shadow"]["incumbent"]["accepted"]) == (30, 30)
    assert second["reasons"]
    for place in second["objects"].values():
        assert cycle.blobs.stat(place) is not None
