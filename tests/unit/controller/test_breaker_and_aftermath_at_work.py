"""Diversity alarms and rollbacks for worse data, from shards to events and ledger; killed, raced and repeated."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import httpx
import pytest

from jupiter import keys
from jupiter.controller.aftermath import Failure
from jupiter.controller.alarms import Alarms
from jupiter.controller.deps import Deps
from jupiter.controller.replaying import Stored, replayed
from jupiter.controller.wiring import application
from jupiter.events import (
    BatchGenerated,
    CheckpointSaved,
    DiversityAlarmCleared,
    DiversityAlarmRaised,
    GeneratorRolledBack,
    RewindRequested,
    ShadowRequested,
    VersionQuarantined,
)
from jupiter.ledger import current, openings
from jupiter.records import digest_of
from jupiter.withdrawals import rewound_run
from tests.unit.controller.cases import DOMAIN
from tests.unit.controller.cycle import BATCH_ITEMS, Cycle, Killed, Mortal
from tests.unit.controller.test_promotion import advanced, live_versions, registered, seen_through

VARIED = {"repeats": 0.02, "made": float(BATCH_ITEMS)}
UNIFORM = {"repeats": 0.95, "made": float(BATCH_ITEMS)}


async def curated(cycle: Cycle, count: int, *, accepted: int = 30, figures: dict[str, float]) -> None:
    """So many batches of the live version, each with its shard."""
    for _ in range(count):
        await cycle.curate(await cycle.make_batch(), accepted=accepted, **figures)


async def test_uniform_batches_raise_an_alarm_once_and_varied_ones_clear_it(tmp_path: Path) -> None:
    cycle = await registered(tmp_path)
    await curated(cycle, 8, figures=VARIED)
    await advanced(cycle)
    assert await cycle.events("alarms") == []
    await curated(cycle, 8, figures=UNIFORM)
    await asyncio.gather(*(advanced(cycle) for _ in range(3)))
    deps = await advanced(cycle)
    (raised,) = await cycle.events("alarms")
    assert isinstance(raised, DiversityAlarmRaised)
    assert any("repeats" in line for line in raised.alarms)
    assert deps.state.open_alarm() == raised
    assert deps.runtime.telemetry.registry.get_sample_value("jupiter_diversity_alarm") == 1
    await curated(cycle, 12, figures=VARIED)
    deps = await advanced(cycle)
    _, cleared = await cycle.events("alarms")
    assert isinstance(cleared, DiversityAlarmCleared)
    assert deps.state.open_alarm() is None
    assert deps.runtime.telemetry.registry.get_sample_value("jupiter_diversity_alarm") == 0


async def test_the_figures_over_time_and_the_alarm_are_in_the_api(tmp_path: Path) -> None:
    cycle = await registered(tmp_path)
    await curated(cycle, 8, figures=VARIED)
    await curated(cycle, 6, figures=UNIFORM)
    parts = await cycle.parts(cycle.runtime())
    await Alarms(parts.deps).advance()
    transport = httpx.ASGITransport(app=application(parts.deps))
    async with httpx.AsyncClient(transport=transport, base_url="http://controller") as client:
        status = (await client.get("/v1/status")).json()
        assert status["diversity_alarm"]["generator_version"] == 1
        repeats = next(figure for figure in status["diversity"] if figure["name"] == "repeats")
        assert repeats["past"]
        over_time = (await client.get("/v1/diversity", params={"limit": 7})).json()
        assert [shard["figures"]["repeats"] for shard in over_time] == [0.02] + [0.95] * 6
        assert (await client.get("/v1/diversity", params={"version": 2})).json() == []
        assert 'jupiter_diversity_excess{figure="repeats"}' in (await client.get("/metrics")).text


async def test_worse_first_batches_roll_the_version_back_with_the_evidence(tmp_path: Path) -> None:
    cycle = await _promoted(tmp_path)
    await curated(cycle, 3, accepted=3, figures=VARIED)
    await advanced(cycle)
    assert live_versions(cycle) == [1, 2]  # too few to say
    await curated(cycle, 1, accepted=3, figures=VARIED)
    await advanced(cycle)
    assert live_versions(cycle) == [1, 2, 1]
    back = cycle.ledger()[-1]
    assert (back.action, back.actor, back.quarantined) == ("rolled_back", "controller", True)
    assert "accepted" in back.reason
    stored = cycle.blobs.get(_evidence_key(cycle))
    assert hashlib.sha256(stored).hexdigest() == back.evidence_sha256
    failure = Failure.model_validate_json(stored)
    assert (failure.version, failure.previous_version, len(failure.shards)) == (2, 1, 4)
    assert isinstance((await cycle.events("generators"))[-1], GeneratorRolledBack)
    # The rollback is not rolled back, whatever version 1 makes now.
    await curated(cycle, 4, accepted=0, figures=VARIED)
    await advanced(cycle)
    assert live_versions(cycle) == [1, 2, 1]


async def test_a_rollback_for_worse_data_sends_the_trainer_back_and_promotes_nothing_of_it(tmp_path: Path) -> None:
    """Nobody is there to ask for the rewind: what ate the bad version's batches is never promoted by itself."""
    cycle = await _promoted(tmp_path)
    bad = [await cycle.curate(await cycle.make_batch(), accepted=3, **VARIED) for _ in range(4)]
    dirty = await cycle.save_checkpoint(200, shards=bad)
    await advanced(cycle)
    back = cycle.ledger()[-1]
    assert (back.action, back.version, back.quarantined, back.rewind) == ("rolled_back", 1, True, True)
    quarantine, rewind = await cycle.events("withdrawals")
    assert isinstance(quarantine, VersionQuarantined)
    assert isinstance(rewind, RewindRequested)
    assert (rewind.run, rewind.checkpoint_id) == ("run1", digest_of(DOMAIN, "run1", 100))

    spent = openings(cycle.ledger())
    report = await cycle.evaluate(dirty)
    deps = await advanced(cycle)
    (reason,) = _rejected(deps, report.evaluation_id)
    assert "was trained on 4 shards of version 2" in reason
    assert "wait for a checkpoint of the run that was sent back" in reason
    assert openings(cycle.ledger()) == spent, "what is refused anyway spends no opening of the sealed half"
    assert live_versions(cycle) == [1, 2, 1]

    clean = await cycle.save_checkpoint(200, run=rewound_run("run1", back.sequence))
    await seen_through(cycle, await cycle.evaluate(clean))
    assert live_versions(cycle) == [1, 2, 1, 3]


async def test_without_a_clean_checkpoint_the_run_is_not_sent_back_and_nothing_of_it_is_promoted(
    tmp_path: Path,
) -> None:
    """Another run was begun under the bad version: all that it saved holds its batches."""
    cycle = await _promoted(tmp_path)
    bad = [await cycle.curate(await cycle.make_batch(), accepted=3, **VARIED) for _ in range(4)]
    dirty = await cycle.save_checkpoint(10, shards=bad, run="run2")
    await advanced(cycle)
    back = cycle.ledger()[-1]
    assert (back.action, back.quarantined, back.rewind) == ("rolled_back", True, False)
    assert [type(event) for event in await cycle.events("withdrawals")] == [VersionQuarantined]
    report = await cycle.evaluate(dirty)
    deps = await advanced(cycle)
    (reason,) = _rejected(deps, report.evaluation_id)
    assert "begin another (a new name in trainer.run)" in reason
    assert live_versions(cycle) == [1, 2, 1]


async def test_a_withdrawn_candidate_takes_no_clean_ones_turn_at_the_sealed_half(tmp_path: Path) -> None:
    """The run goes on until it is sent back: what it saves meanwhile is newer, and both wait for the sealed half."""
    cycle = await _promoted(tmp_path)
    clean = await cycle.save_checkpoint(150)
    bad = [await cycle.curate(await cycle.make_batch(), accepted=3, **VARIED) for _ in range(4)]
    dirty = await cycle.save_checkpoint(200, shards=bad)
    await advanced(cycle)
    sound, withdrawn = await cycle.evaluate(clean), await cycle.evaluate(dirty)
    deps = await advanced(cycle)
    assert _rejected(deps, withdrawn.evaluation_id)
    assert deps.stages[sound.evaluation_id].name == "confirmation"
    assert openings(cycle.ledger())[-1].evaluation_id == sound.evaluation_id


async def test_what_is_heard_to_be_withdrawn_after_the_opening_is_rejected_before_its_shadow_batch(
    tmp_path: Path,
) -> None:
    cycle, dirty, late = await _late(tmp_path)
    report = await cycle.evaluate(dirty)
    await advanced(cycle)
    await cycle.confirm(report)
    await cycle.curate(late, accepted=3, **VARIED)
    deps = await advanced(cycle)
    assert _rejected(deps, report.evaluation_id)
    assert await cycle.asked(ShadowRequested, report.evaluation_id, channel="shadows") is None


async def test_what_is_heard_to_be_withdrawn_after_the_verdict_is_refused_when_it_is_acted_on(tmp_path: Path) -> None:
    automatic, dirty, late = await _late(tmp_path)
    cycle = Cycle(tmp_path, bus=automatic.bus, blobs=automatic.blobs, self_improvement={"mode": "approve"})
    report = await cycle.evaluate(dirty)
    deps = await seen_through(cycle, report)
    assert deps.state.verdicts[report.evaluation_id].decision == "PROMOTE"
    await cycle.curate(late, accepted=3, **VARIED)
    deps = await advanced(automatic)
    refusal = deps.evidence.refusal(report.evaluation_id)
    assert refusal is not None
    assert "was trained on 1 shards of version 2" in refusal.reason
    assert live_versions(cycle) == [1, 2, 1]


async def _late(directory: Path) -> tuple[Cycle, CheckpointSaved, BatchGenerated]:
    """Version 2 was rolled back; a checkpoint that holds a shard of it; the shard's batch, whose shard nobody knows."""
    cycle = await _promoted(directory)
    late = await cycle.make_batch()
    shard = await Cycle(directory, blobs=cycle.blobs).curate(late, accepted=3, **VARIED)  # told on another bus
    await curated(cycle, 4, accepted=3, figures=VARIED)
    await advanced(cycle)
    assert live_versions(cycle) == [1, 2, 1]
    return cycle, await cycle.save_checkpoint(200, shards=[shard]), late


def _rejected(deps: Deps, evaluation_id: str) -> tuple[str, ...]:
    """Return the reasons of a verdict that was told, is a REJECT and can be decided again from its record."""
    told = deps.state.verdicts[evaluation_id]
    inputs, verdict = deps.evidence.stored(evaluation_id)
    assert inputs is not None
    again = replayed(Stored(inputs=inputs, verdict=verdict, told=told.verdict_sha256, ledger=deps.ledger.entries))
    assert (told.decision, again.decision, again.faults) == ("REJECT", "REJECT", ())
    return told.reasons


async def test_first_batches_as_good_as_the_old_ones_stay_whatever_comes_later(tmp_path: Path) -> None:
    cycle = await _promoted(tmp_path)
    await curated(cycle, 4, accepted=29, figures=VARIED)
    await advanced(cycle)
    await curated(cycle, 6, accepted=3, figures=VARIED)
    await advanced(cycle)
    assert live_versions(cycle) == [1, 2]


async def test_a_rollback_for_worse_data_survives_any_death_and_a_second_controller(tmp_path: Path) -> None:
    whole = Mortal()
    await _fallen(tmp_path, whole)
    assert whole.writes >= 3  # evidence, ledger, announcement
    for lifetime in range(whole.writes):
        cycle = await _fallen(tmp_path, Mortal(lifetime))
        await asyncio.gather(advanced(cycle), advanced(cycle))
        assert live_versions(cycle) == [1, 2, 1], f"killed after write {lifetime}"
        stored = cycle.blobs.get(_evidence_key(cycle))
        back = current(cycle.ledger())
        assert back is not None
        assert hashlib.sha256(stored).hexdigest() == back.evidence_sha256
        told = [event for event in await cycle.events("generators") if isinstance(event, GeneratorRolledBack)]
        assert len(told) == 1


@pytest.mark.parametrize("damaged", [b"", b"\x00\xff", b"{}"], ids=["empty", "no text", "no fields"])
async def test_damaged_evidence_is_found_anew_in_the_shards_and_rolls_the_version_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damaged: bytes
) -> None:
    """A controller stored it and died before the rollback; the disk did the rest."""
    cycle = await _promoted(tmp_path)
    key = _evidence_key(cycle)
    cycle.blobs.put(key, damaged)
    await curated(cycle, 4, accepted=3, figures=VARIED)
    await asyncio.gather(advanced(cycle), advanced(cycle))
    assert live_versions(cycle) == [1, 2, 1]
    back = cycle.ledger()[-1]
    assert (back.action, back.quarantined, back.rewind) == ("rolled_back", True, True)
    assert f"evidence {key} is damaged" in caplog.text
    assert cycle.blobs.get(key) == damaged
    beside = (info.key for info in cycle.blobs.list(keys.generator_prefix(DOMAIN, 2)) if "-aftermath-" in info.key)
    (stored,) = (cycle.blobs.get(one) for one in beside)
    assert hashlib.sha256(stored).hexdigest() == back.evidence_sha256
    failure = Failure.model_validate_json(stored)
    assert (failure.reason, failure.version, len(failure.shards)) == (back.reason, 2, 4)


async def _promoted(directory: Path) -> Cycle:
    """Version 2 has just replaced version 1, of whose samples three of four were accepted."""
    cycle = await registered(directory)
    await curated(cycle, 6, figures=VARIED)
    await seen_through(cycle, await cycle.evaluate(await cycle.save_checkpoint(100)))
    assert live_versions(cycle) == [1, 2]
    return cycle


async def _fallen(directory: Path, life: Mortal) -> Cycle:
    """Its first batches are worse, and the controller that sees it may die."""
    cycle = await _promoted(directory)
    await curated(cycle, 4, accepted=3, figures=VARIED)
    try:
        await advanced(cycle, life)
    except Killed:
        return cycle
    return cycle


def _evidence_key(cycle: Cycle) -> str:
    promotion = next(entry for entry in cycle.ledger() if entry.action == "promoted")
    return f"{keys.generator_prefix(DOMAIN, 2)}/aftermath-{promotion.sequence:08d}.json"
