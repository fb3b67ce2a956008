"""Training data that hold the benchmark, and candidates of a run that was sent back: neither is promoted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from jupiter import keys, manifests
from jupiter.cli import run
from jupiter.contamination import ShardCount, keep_count
from jupiter.controller.evidence import Inputs
from jupiter.controller.flips import Request, flip_to_version
from jupiter.events import CheckpointSaved, ShardCurated
from jupiter.ledger import openings
from jupiter.records import digest_of
from tests.unit.controller.cases import BENCHMARK
from tests.unit.controller.cycle import Cycle
from tests.unit.controller.test_promotion import advanced, live_versions, registered, seen_through
from tests.unit.controller.test_withdrawals import checkpoint, shard_of

CHECK = "training data clean of the benchmark"
CLEAN: Mapping[str, Any] = {"benchmark": BENCHMARK, "synthetic": 0, "real": 0, "items": {}}
LEAKED = {
    "benchmark": BENCHMARK,
    "synthetic": 2,
    "real": 1,
    "items": {"item-1": "development", "item-2": "confirmation", "item-3": "confirmation", "general-4": ""},
}
UNKNOWN = (
    "0 samples in 1 shards; 1 shards of which nobody knows: the evaluator counts those that can be read when it "
    "evaluates the next checkpoint, and its log names the others; restore them, or start another run (trainer.run)"
)


def shard(cycle: Cycle, number: int, contamination: Mapping[str, Any] | None) -> str:
    """Commit a shard as the curator counted it (None: it did not) and return its id."""
    shard_id = digest_of("shard", number)
    manifests.commit(
        cycle.blobs,
        prefix=keys.shard_prefix(cycle.name, shard_id),
        kind="shard",
        domain=cycle.name,
        work_id=shard_id,
        files=(),
        details={} if contamination is None else {"contamination": contamination},
    )
    return shard_id


async def trained_on(cycle: Cycle, shard_ids: list[str], *, step: int = 100) -> CheckpointSaved:
    prefix = keys.checkpoint_prefix(cycle.name, "run1", step)
    committed = manifests.commit(
        cycle.blobs,
        prefix=prefix,
        kind="checkpoint",
        domain=cycle.name,
        work_id=digest_of(cycle.name, "run1", step),
        files=(manifests.upload_bytes(cycle.blobs, prefix=prefix, name="model/model.safetensors", data=b"weights"),),
        details={"run": "run1", "step": step, "shards": shard_ids},
    )
    saved = CheckpointSaved(
        domain=cycle.name,
        checkpoint_id=committed.manifest.work_id,
        run="run1",
        step=step,
        tokens_seen=100,
        loss=1.0,
        shard_sequence=len(shard_ids),
        manifest_key=committed.key,
        manifest_sha256=committed.sha256,
    )
    await cycle.bus.publish(saved)
    return saved


async def test_a_better_candidate_of_clean_shards_is_promoted(tmp_path: Path) -> None:
    cycle = await registered(tmp_path)
    saved = await trained_on(cycle, [shard(cycle, number, CLEAN) for number in range(3)])
    await seen_through(cycle, await cycle.evaluate(saved))
    assert live_versions(cycle) == [1, 2]


@pytest.mark.parametrize(
    ("counted", "figure"),
    [
        (LEAKED, "3 samples in 2 shards, of items: 2 confirmation, 1 development, 1 other"),
        (None, UNKNOWN),
        ({**CLEAN, "benchmark": digest_of("another")}, UNKNOWN),
    ],
)
async def test_the_same_candidate_of_shards_that_hold_the_benchmark_or_that_nobody_counted_is_invalid(
    tmp_path: Path, counted: Mapping[str, Any] | None, figure: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cycle = await registered(tmp_path)
    saved = await trained_on(cycle, [shard(cycle, 1, CLEAN), shard(cycle, 2, counted)])
    report = await cycle.evaluate(saved)
    deps = await advanced(cycle)
    stands = deps.evidence.verdict(report.evaluation_id)
    assert stands is not None
    assert stands[0].decision == "INVALID"
    assert [(check.name, check.figure) for check in stands[0].checks if check.outcome != "passed"] == [(CHECK, figure)]
    assert live_versions(cycle) == [1]

    inputs, verdict = deps.evidence.stored(report.evaluation_id)
    assert inputs is not None
    assert Inputs.model_validate_json(inputs).report.contamination is not None
    (tmp_path / "inputs.json").write_bytes(inputs)
    (tmp_path / "verdict.json").write_bytes(verdict)
    assert run(["replay", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "INVALID: the same verdict, bit for bit\n"


async def test_shards_of_an_earlier_benchmark_count_by_what_the_evaluator_found(tmp_path: Path) -> None:
    """After a renewal: the history was counted against the new benchmark, and one shard holds some of it."""
    cycle = await registered(tmp_path)
    earlier = {**CLEAN, "benchmark": digest_of("the benchmark before")}
    old = [shard(cycle, 1, earlier), shard(cycle, 2, None)]
    for shard_id in old:
        keep_count(cycle.blobs, cycle.name, shard_id, ShardCount.model_validate(CLEAN))
    saved = await trained_on(cycle, [*old, shard(cycle, 3, CLEAN)])
    await seen_through(cycle, await cycle.evaluate(saved))
    assert live_versions(cycle) == [1, 2]

    dirty = shard(cycle, 4, earlier)
    keep_count(cycle.blobs, cycle.name, dirty, ShardCount.model_validate(LEAKED))
    report = await cycle.evaluate(await trained_on(cycle, [*old, dirty], step=200))
    stands = (await advanced(cycle)).evidence.verdict(report.evaluation_id)
    assert stands is not None
    assert stands[0].decision == "INVALID"
    (fault,) = [check for check in stands[0].checks if check.outcome == "invalid"]
    assert fault.figure == "3 samples in 3 shards, of items: 2 confirmation, 1 development, 1 other"
    assert live_versions(cycle) == [1, 2]


async def shards_of_two_versions(cycle: Cycle) -> tuple[ShardCurated, ShardCurated]:
    """Promote version 2 by force, with a shard of either version."""
    old = await shard_of(cycle, await cycle.make_batch(), 1)
    first = await checkpoint(cycle, 10, [old])
    await seen_through(cycle, await cycle.evaluate(first))
    assert live_versions(cycle) == [1, 2]
    return old, await shard_of(cycle, await cycle.make_batch(), 2)


@pytest.mark.parametrize("rewind", [True, False])
async def test_a_candidate_of_the_run_before_a_rewind_is_rejected(tmp_path: Path, *, rewind: bool) -> None:
    """Without the rewind somebody chose to go on from those weights: then they are judged as any other."""
    cycle = await registered(tmp_path)
    old, bad = await shards_of_two_versions(cycle)
    dirty = await checkpoint(cycle, 20, [old, bad])
    request = Request(actor="a person", reason="bad", action="rolled_back", quarantine=True, rewind=rewind)
    flip_to_version(cycle.blobs, cycle.name, request, version=1)
    await advanced(cycle)
    spent = openings(cycle.ledger())
    report = await cycle.evaluate(dirty)
    if not rewind:
        deps = await seen_through(cycle, report)
        assert deps.state.verdicts[report.evaluation_id].decision == "PROMOTE"
        assert deps.evidence.refusal(report.evaluation_id) is None
        assert live_versions(cycle) == [1, 2, 1, 3]
        return
    deps = await advanced(cycle)
    told = deps.state.verdicts[report.evaluation_id]
    assert told.decision == "REJECT"
    assert "step 20 of run1 was trained on 1 shards of version 2" in told.reasons[0]
    assert openings(cycle.ledger()) == spent
    assert live_versions(cycle) == [1, 2, 1]
    clean = await checkpoint(cycle, 30, [old])
    await seen_through(cycle, await cycle.evaluate(clean))
    assert live_versions(cycle) == [1, 2, 1, 3]
