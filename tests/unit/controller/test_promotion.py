"""The promotion saga: through, killed anywhere, raced, and rolled back."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from jupiter import keys
from jupiter.controller.alarms import Alarms
from jupiter.controller.deps import Deps
from jupiter.controller.flips import Request, flip_to_checkpoint, flip_to_version
from jupiter.controller.promotion import Promotion, wanted
from jupiter.controller.verdicts import Verdicts
from jupiter.errors import Conflict, NotFound, Rejected
from jupiter.events import GeneratorPromoted, GeneratorRolledBack
from jupiter.ledger import LedgerEntry, current, flips, openings
from jupiter.manifests import read
from jupiter.reports import EvaluationReport
from jupiter.service import running
from tests.unit.controller.cases import DOMAIN, equal, items
from tests.unit.controller.cycle import Cycle, Killed, Mortal, eventually


async def advanced(cycle: Cycle, life: Mortal | None = None) -> Deps:
    """Start a controller, let it do one round, and let it end."""
    runtime = cycle.runtime(life)
    parts = await cycle.parts(runtime)
    for subscription in parts.subscriptions:
        # One pass over what lies there: handlers are idempotent, so every start may see everything again.
        for event in await cycle.events(subscription.channel):
            handler = subscription.handlers.get(type(event))
            for outcome in (await handler(event, parts.deps)) or () if handler else ():
                await runtime.bus.publish(outcome)
                parts.deps.state.apply(outcome)
    await Alarms(parts.deps).advance()
    await Verdicts(parts.deps).advance()
    await Promotion(parts.deps).advance()
    return parts.deps


async def seen_through(cycle: Cycle, report: EvaluationReport, life: Mortal | None = None) -> Deps:
    """Let the controller and the others take turns until the evaluation has passed every stage."""
    await advanced(cycle, life)
    await cycle.confirm(report)
    await advanced(cycle, life)
    await cycle.shadow(report)
    return await advanced(cycle, life)


async def registered(directory: Path, **settings: Any) -> Cycle:
    """A cycle with a base model that has generated a batch."""
    cycle = Cycle(directory, **settings)
    await cycle.import_base()
    await advanced(cycle)
    await cycle.make_batch()
    return cycle


def live_versions(cycle: Cycle) -> list[int]:
    return [entry.version for entry in flips(cycle.ledger())]


async def test_whole_cycle_in_a_running_service(tmp_path: Path) -> None:
    cycle = Cycle(tmp_path)
    runtime = cycle.runtime()
    async with running(runtime, await cycle.parts(runtime)):
        await cycle.import_base()
        await eventually(lambda: len(cycle.ledger()) == 1)
        await cycle.load(cycle.ledger()[0])
        report = await cycle.evaluate(await cycle.save_checkpoint(100))
        await cycle.answer(report)
        await eventually(lambda: live_versions(cycle) == [1, 2])
        await cycle.load(cycle.ledger()[-1])
    assert [entry.action for entry in cycle.ledger()] == ["registered", "opened", "promoted"]
    promoted = cycle.ledger()[-1]
    assert (promoted.action, promoted.version, promoted.previous_version) == ("promoted", 2, 1)
    assert promoted.evaluation_id == report.evaluation_id
    assert promoted.evidence_sha256 is not None
    manifest = read(cycle.blobs, promoted.manifest_key, sha256=promoted.manifest_sha256).manifest
    assert manifest.details["checkpoint_id"] == report.checkpoint_id
    assert "golden.json" in [ref.name for ref in manifest.files]
    assert "training_state.json" not in [ref.name for ref in manifest.files]
    assert [type(event) for event in await cycle.events("generators")] == [GeneratorPromoted, GeneratorPromoted]


async def test_killed_after_any_write_and_restarted_it_ends_the_same(tmp_path: Path) -> None:
    whole = Mortal()
    await _until_promotion(whole, tmp_path)
    # Registration, opening, both requests, inputs, verdict, version, flip, and what tells of them.
    assert whole.writes >= 11
    for lifetime in range(whole.writes):
        cycle = await _until_promotion(Mortal(lifetime), tmp_path)
        deps = await advanced(cycle)
        assert live_versions(cycle) == [1, 2], f"killed after write {lifetime}"
        assert len(openings(cycle.ledger())) == 1, f"killed after write {lifetime}"
        announced = [event for event in await cycle.events("generators") if isinstance(event, GeneratorPromoted)]
        sequences = [entry.sequence for entry in flips(cycle.ledger())]
        assert [event.ledger_sequence for event in announced] == sequences, f"killed after write {lifetime}"
        for channel, count in {"verdicts": 1, "confirmations": 1, "shadows": 3}.items():
            assert len(await cycle.events(channel)) == count, f"killed after write {lifetime}: {channel}"
        assert len(deps.state.flips) == 2


async def _until_promotion(life: Mortal, directory: Path) -> Cycle:
    """Import, evaluate and promote with a controller that dies on the way; the next one goes on where it was."""
    cycle = Cycle(directory)

    async def round_of() -> None:
        try:
            await advanced(cycle, life)
        except Killed:
            await advanced(cycle)

    await cycle.import_base()
    await round_of()
    await cycle.make_batch()
    report = await cycle.evaluate(await cycle.save_checkpoint(100))
    await round_of()
    await cycle.confirm(report)
    await round_of()
    await cycle.shadow(report)
    await round_of()
    return cycle


async def test_a_hold_promotes_nothing(tmp_path: Path) -> None:
    cycle = await registered(tmp_path)
    await cycle.evaluate(await cycle.save_checkpoint(100), items(equal))
    deps = await advanced(cycle)
    assert len(cycle.ledger()) == 1
    assert [verdict.decision for verdict in deps.state.verdicts.values()] != ["PROMOTE"]


@pytest.mark.parametrize("mode", ["approve", "dry_run"])
async def test_other_modes_leave_the_flip_to_people(tmp_path: Path, mode: str) -> None:
    cycle = await registered(tmp_path, self_improvement={"mode": mode})
    deps = await seen_through(cycle, await cycle.evaluate(await cycle.save_checkpoint(100)))
    assert [verdict.decision for verdict in deps.state.verdicts.values()] == ["PROMOTE"]
    assert live_versions(cycle) == [1]


async def test_two_controllers_flip_once(tmp_path: Path) -> None:
    cycle = await registered(tmp_path)
    report = await cycle.evaluate(await cycle.save_checkpoint(100))
    for answer in (cycle.confirm, cycle.shadow, None):
        await asyncio.gather(*(advanced(cycle) for _ in range(4)))
        if answer:
            await answer(report)
    assert [entry.action for entry in cycle.ledger()] == ["registered", "opened", "promoted"]
    assert len(await cycle.events("generators")) == 2
    assert [len(await cycle.events(channel)) for channel in ("confirmations", "shadows", "verdicts")] == [1, 3, 1]


async def test_two_candidates_raced_by_two_controllers_flip_once(tmp_path: Path) -> None:
    cycle = Cycle(tmp_path)
    await cycle.import_base()
    await advanced(cycle)
    saved = [await cycle.save_checkpoint(step) for step in (100, 200, 300)]

    def flip(index: int) -> str:
        request = Request(actor=f"controller-{index}", reason="race", action="promoted", expected_version=1)
        try:
            flip_to_checkpoint(
                cycle.blobs,
                DOMAIN,
                request,
                checkpoint_id=saved[index].checkpoint_id,
                manifest_key=saved[index].manifest_key,
                manifest_sha256=saved[index].manifest_sha256,
            )
        except Conflict:
            return "lost"
        return "won"

    outcomes = await asyncio.gather(*(asyncio.to_thread(flip, index) for index in range(3)))
    assert sorted(outcomes) == ["lost", "lost", "won"]
    assert len(cycle.ledger()) == 2
    # A number that a loser had taken is not given to another checkpoint.
    live = cycle.ledger()[-1]
    manifest = read(cycle.blobs, live.manifest_key, sha256=live.manifest_sha256).manifest
    assert manifest.details["checkpoint_id"] == live.checkpoint_id


async def test_checkpoint_with_a_missing_file_is_refused_once_and_for_all(tmp_path: Path) -> None:
    cycle = await registered(tmp_path)
    saved = await cycle.save_checkpoint(100)
    report = await cycle.evaluate(saved)
    cycle.blobs.delete(read(cycle.blobs, saved.manifest_key).manifest.file("model/model.safetensors").key)
    await seen_through(cycle, report)
    deps = await advanced(cycle)
    assert live_versions(cycle) == [1]
    refusal = deps.evidence.refusal(report.evaluation_id)
    assert refusal is not None
    assert "model/model.safetensors" in refusal.reason


async def test_a_verdict_that_was_written_over_promotes_nobody(tmp_path: Path) -> None:
    cycle = await registered(tmp_path, self_improvement={"mode": "approve"})
    report = await cycle.evaluate(await cycle.save_checkpoint(100))
    await seen_through(cycle, report)
    key = keys.verdict_key(DOMAIN, report.evaluation_id)
    stored = cycle.blobs.get(key)
    cycle.blobs.put(key, stored.replace(b'"look":1', b'"look":2'))
    deps = await advanced(cycle)
    assert await wanted(deps) == []
    refusal = deps.evidence.refusal(report.evaluation_id)
    assert refusal is not None
    assert "somebody rewrote its verdict" in refusal.reason


async def test_refused_by_every_live_generator_it_is_rolled_back(tmp_path: Path) -> None:
    cycle = await _promoted(tmp_path)
    for instance in ("0", "1"):
        await cycle.say("generator", instance=instance)
    await cycle.load(live(cycle), instance="generator-0", failed="golden outputs differ")
    await advanced(cycle)
    assert live_versions(cycle) == [1, 2]  # generator-1 has not spoken yet
    await cycle.load(live(cycle), instance="generator-1", failed="golden outputs differ")
    await advanced(cycle)
    back = live(cycle)
    assert (back.action, back.version, back.actor) == ("rolled_back", 1, "controller")
    assert "golden outputs differ" in back.reason
    assert isinstance((await cycle.events("generators"))[-1], GeneratorRolledBack)
    # Neither is version 2 tried again on the old verdict, nor the rollback rolled back.
    await cycle.load(back, failed="still broken")
    await advanced(cycle)
    assert live_versions(cycle) == [1, 2, 1]


async def test_served_by_one_it_stays(tmp_path: Path) -> None:
    cycle = await _promoted(tmp_path)
    await cycle.say("generator", instance="0")
    await cycle.load(live(cycle), instance="generator-0")
    await cycle.load(live(cycle), instance="generator-1", failed="out of memory")
    await advanced(cycle)
    assert live_versions(cycle) == [1, 2]


async def test_not_loaded_in_time_it_is_rolled_back(tmp_path: Path) -> None:
    cycle = Cycle(tmp_path, load_timeout_s=0.2)
    runtime = cycle.runtime()
    async with running(runtime, await cycle.parts(runtime)):
        await cycle.import_base()
        await eventually(cycle.ledger)
        await cycle.say(
            "generator", stage="waiting", detail="version 2 waits for this machine: NoRoom: 500 MiB are free"
        )
        await cycle.answer(await cycle.evaluate(await cycle.save_checkpoint(100)))
        await eventually(lambda: live_versions(cycle) == [1, 2, 1])
    assert "within 0.2 s" in live(cycle).reason
    assert "500 MiB are free" in live(cycle).reason


async def test_version_numbers_are_never_used_twice(tmp_path: Path) -> None:
    cycle = await _promoted(tmp_path)
    await cycle.load(live(cycle), failed="no")
    await advanced(cycle)
    assert live(cycle).version == 1
    await seen_through(cycle, await cycle.evaluate(await cycle.save_checkpoint(200)))
    assert live_versions(cycle) == [1, 2, 1, 3]
    # The rollback has not forgotten that version 1 was compared with before.
    assert [entry.opening for entry in openings(cycle.ledger(), version=1)] == [1, 2]


async def test_rollback_by_hand(tmp_path: Path) -> None:
    cycle = await _promoted(tmp_path)

    def back(version: int | None, *, expected: int, key: str) -> int:
        request = Request(
            actor="ada", reason="odd answers", action="rolled_back", expected_version=expected, idempotency_key=key
        )
        return flip_to_version(cycle.blobs, DOMAIN, request, version=version).sequence

    with pytest.raises(Conflict, match="version 2 is live, not 1"):
        back(None, expected=1, key="a")
    with pytest.raises(NotFound, match=r"no version 7"):
        back(7, expected=2, key="b")
    with pytest.raises(Conflict, match="live already"):
        back(2, expected=2, key="c")
    assert back(None, expected=2, key="d") == 4
    assert back(None, expected=2, key="d") == 4  # the same request again
    assert live_versions(cycle) == [1, 2, 1]
    with pytest.raises(NotFound, match="before the first"):
        back(None, expected=1, key="e")


async def test_rollback_to_a_version_without_its_files_is_refused(tmp_path: Path) -> None:
    cycle = await _promoted(tmp_path)
    base = read(cycle.blobs, cycle.ledger()[0].manifest_key).manifest
    cycle.blobs.delete(base.file("model/model.safetensors").key)
    request = Request(actor="ada", reason="why not", action="rolled_back")
    with pytest.raises(Rejected, match=r"model\.safetensors"):
        flip_to_version(cycle.blobs, DOMAIN, request, version=1)


async def test_verdict_is_stored_once_with_its_checks(tmp_path: Path) -> None:
    cycle = await _promoted(tmp_path)
    verdicts = [info.key for info in cycle.blobs.list(f"evaluations/{DOMAIN}/") if info.key.endswith("verdict.json")]
    assert len(verdicts) == 1
    evaluation_id = live(cycle).evaluation_id
    assert evaluation_id is not None
    assert verdicts == [keys.verdict_key(DOMAIN, evaluation_id)]


async def _promoted(directory: Path) -> Cycle:
    """A cycle in which version 2 has just become live."""
    cycle = await registered(directory)
    await seen_through(cycle, await cycle.evaluate(await cycle.save_checkpoint(100)))
    assert live_versions(cycle) == [1, 2]
    return cycle


def live(cycle: Cycle) -> LedgerEntry:
    entry = current(cycle.ledger())
    assert entry is not None
    return entry
