"""The staged evaluation: screen, sealed half, shadow batch, verdict; killed, raced, overtaken and refused."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from jupiter import keys
from jupiter.bus.memory import MemoryBus
from jupiter.cli.progress import milestones
from jupiter.controller.burials import Burials
from jupiter.controller.conductor import Conductor
from jupiter.controller.deps import Deps
from jupiter.controller.evidence import Inputs
from jupiter.controller.flips import Request, flip_to_checkpoint
from jupiter.controller.gate import decide
from jupiter.controller.gate.verdict import Decision, Outcome
from jupiter.controller.projection import Projection
from jupiter.controller.verdicts import Verdicts
from jupiter.controller.wiring import application
from jupiter.events import (
    ConfirmationRequested,
    DiversityAlarmCleared,
    DiversityAlarmRaised,
    Event,
    ShadowFailed,
    ShadowRequested,
    VerdictReached,
)
from jupiter.ledger import openings
from jupiter.records import canonical_json, digest_of
from jupiter.reports import Dimension, ItemResult
from tests.unit.controller.cases import BENCHMARK, DOMAIN, items
from tests.unit.controller.cycle import WAIT_S, Cycle, Killed, MeddledBlobs, Mortal
from tests.unit.controller.test_promotion import advanced, live_versions, registered, seen_through


def lucky(rng: random.Random, _: Dimension) -> tuple[float, float]:
    return float(rng.random() < 0.8), float(rng.random() < 0.5)


def overfitted() -> list[ItemResult]:
    """Better on the development half, where its prompts were chosen, and no better on the sealed one."""
    scored = items(lucky)
    return [
        item.model_copy(update={"candidate": item.generator}) if item.half == "confirmation" else item
        for item in scored
    ]


async def verdict_of(cycle: Cycle, evaluation_id: str) -> VerdictReached | None:
    told = [event for event in await cycle.events("verdicts") if isinstance(event, VerdictReached)]
    return next((event for event in told if event.evaluation_id == evaluation_id), None)


def decided(deps: Deps, evaluation_id: str) -> tuple[Decision, dict[str, Outcome]]:
    """Return the settled decision, and the checks that did not pass."""
    stands = deps.evidence.verdict(evaluation_id)
    assert stands is not None
    return stands[0].decision, {check.name: check.outcome for check in stands[0].checks if check.outcome != "passed"}


async def test_one_stage_after_the_other(tmp_path: Path) -> None:
    cycle = await registered(tmp_path)
    batch = await cycle.make_batch()
    report = await cycle.evaluate(await cycle.save_checkpoint(100))

    deps = await advanced(cycle)
    opening = cycle.ledger()[-1]
    assert (opening.action, opening.opening, opening.version) == ("opened", 1, 1)
    assert (opening.evaluation_id, opening.benchmark_digest) == (report.evaluation_id, report.benchmark_digest)
    asked = await cycle.asked(ConfirmationRequested, report.evaluation_id, channel="confirmations")
    assert asked is not None
    assert (asked.opening, asked.ledger_sequence) == (1, opening.sequence)
    assert deps.stages[report.evaluation_id].name == "confirmation"

    await cycle.confirm(report)
    deps = await advanced(cycle)
    wanted = await cycle.asked(ShadowRequested, report.evaluation_id, channel="shadows")
    assert wanted is not None
    assert (wanted.batch_id, wanted.batch_manifest_sha256) == (batch.batch_id, batch.manifest_sha256)
    assert deps.stages[report.evaluation_id].name == "shadow"
    assert await cycle.events("verdicts") == []

    await cycle.shadow(report)
    deps = await advanced(cycle)
    told = await verdict_of(cycle, report.evaluation_id)
    assert told is not None
    assert told.decision == "PROMOTE"
    assert live_versions(cycle) == [1, 2]
    assert len(openings(cycle.ledger())) == 1
    # Its checkpoint was kept all the while, and a round later nothing more is asked.
    await advanced(cycle)
    assert len(await cycle.events("confirmations")) == 1


async def test_the_verdict_follows_bit_for_bit_from_what_is_stored(tmp_path: Path) -> None:
    cycle = await registered(tmp_path)
    report = await cycle.evaluate(await cycle.save_checkpoint(100))
    deps = await seen_through(cycle, report)
    stored, verdict = deps.evidence.stored(report.evaluation_id)
    assert stored is not None
    inputs = Inputs.model_validate_json(stored)
    again = decide(inputs.report, inputs.history, inputs.config)
    digest = hashlib.sha256(stored).hexdigest()
    assert canonical_json(again.model_copy(update={"inputs_sha256": digest})) == verdict
    told = await verdict_of(cycle, report.evaluation_id)
    assert told is not None
    assert told.verdict_sha256 == hashlib.sha256(verdict).hexdigest()
    assert inputs.report.confirmation is not None
    assert inputs.report.shadow is not None
    assert [entry.action for entry in inputs.history.ledger] == ["registered", "opened"]


async def test_whose_inputs_were_stored_first_decides(tmp_path: Path) -> None:
    """A controller died between inputs and verdict; the next one has seen an alarm since, and yet settles as begun."""
    cycle = await registered(tmp_path)
    report = await cycle.evaluate(await cycle.save_checkpoint(100))
    deps = await seen_through(cycle, report)
    stored, verdict = deps.evidence.stored(report.evaluation_id)
    assert stored is not None
    inputs = Inputs.model_validate_json(stored)
    cycle.blobs.delete(keys.verdict_key(DOMAIN, report.evaluation_id))
    fresh = await cycle.parts(cycle.runtime())
    late = inputs.model_copy(update={"history": inputs.history.model_copy(update={"alarms": ("distinct-4: low",)})})
    assert canonical_json(fresh.deps.evidence.settle(late)) == verdict


async def test_without_a_batch_of_the_incumbent_it_holds_until_there_is_one(tmp_path: Path) -> None:
    cycle = Cycle(tmp_path)
    await cycle.import_base()
    await advanced(cycle)
    report = await cycle.evaluate(await cycle.save_checkpoint(100))
    await advanced(cycle)
    await cycle.confirm(report)
    deps = await advanced(cycle)
    assert "a batch of version 1" in deps.stages[report.evaluation_id].detail
    assert await cycle.events("shadows") == []
    await cycle.make_batch()
    await advanced(cycle)
    assert await cycle.asked(ShadowRequested, report.evaluation_id, channel="shadows")


async def test_what_only_the_development_half_says_is_not_promoted(tmp_path: Path) -> None:
    cycle = await registered(tmp_path)
    report = await cycle.evaluate(await cycle.save_checkpoint(100), overfitted())
    await advanced(cycle)
    await cycle.confirm(report)
    deps = await advanced(cycle)
    refused = {"sealed improvement": "hold", "sealed sign-flip test": "hold"}
    assert decided(deps, report.evaluation_id) == ("HOLD", refused)
    assert await cycle.events("shadows") == []
    assert live_versions(cycle) == [1]
    # Spent all the same.
    assert len(openings(cycle.ledger())) == 1


async def test_a_good_answerer_that_is_no_good_generator_is_not_promoted(tmp_path: Path) -> None:
    cycle = await registered(tmp_path)
    report = await cycle.evaluate(await cycle.save_checkpoint(100))
    await advanced(cycle)
    await cycle.confirm(report)
    await advanced(cycle)
    await cycle.shadow(report, accepted=3)
    deps = await advanced(cycle)
    assert decided(deps, report.evaluation_id) == ("HOLD", {"shadow acceptance": "hold"})
    assert live_versions(cycle) == [1]


async def test_a_candidate_that_cannot_generate_is_not_promoted(tmp_path: Path) -> None:
    cycle = await registered(tmp_path)
    report = await cycle.evaluate(await cycle.save_checkpoint(100))
    await advanced(cycle)
    await cycle.confirm(report)
    await advanced(cycle)
    reason = "golden outputs differ"
    await cycle.bus.publish(
        ShadowFailed(domain=DOMAIN, evaluation_id=report.evaluation_id, instance="generator-0", reason=reason)
    )
    deps = await advanced(cycle)
    assert decided(deps, report.evaluation_id) == ("HOLD", {"generates at all": "hold"})
    told = await verdict_of(cycle, report.evaluation_id)
    assert told is not None
    assert any(reason in line for line in told.reasons)
    assert live_versions(cycle) == [1]


async def test_one_evaluation_at_a_time_is_confirmed_and_of_the_queue_only_the_newest_goes_on(tmp_path: Path) -> None:
    cycle = await registered(tmp_path)
    first = await cycle.evaluate(await cycle.save_checkpoint(100), overfitted())
    await advanced(cycle)
    second = await cycle.evaluate(await cycle.save_checkpoint(200))
    deps = await advanced(cycle)
    assert deps.stages[second.evaluation_id].name == "queued"
    third = await cycle.evaluate(await cycle.save_checkpoint(300))
    deps = await advanced(cycle)
    overtaken = await verdict_of(cycle, second.evaluation_id)
    assert overtaken is not None
    assert overtaken.decision == "HOLD"
    assert any(third.evaluation_id[:8] in line for line in overtaken.reasons)
    assert deps.stages[third.evaluation_id].name == "queued"
    assert len(openings(cycle.ledger())) == 1
    await cycle.confirm(first)
    await advanced(cycle)  # the first is refused
    await advanced(cycle)
    assert [(entry.evaluation_id, entry.opening) for entry in openings(cycle.ledger())] == [
        (first.evaluation_id, 1),
        (third.evaluation_id, 2),
    ]


async def test_what_another_controller_settled_as_overtaken_is_not_opened(tmp_path: Path) -> None:
    """While one controller asks the gate about the first, another sees a second one too, settles the first and dies."""
    cycle = await registered(tmp_path)
    first = await cycle.evaluate(await cycle.save_checkpoint(100))
    newer = []

    async def other() -> None:
        newer.append(await cycle.evaluate(await cycle.save_checkpoint(200)))
        doomed = (await cycle.parts(cycle.runtime(Mortal(1)))).deps
        with suppress(Killed):
            await Verdicts(doomed).advance()  # the inputs are its last write

    await advanced(meddled(tmp_path, cycle, key="report.json", other=other))
    assert openings(cycle.ledger()) == ()
    deps = await advanced(cycle)
    assert decided(deps, first.evaluation_id) == ("HOLD", {"sealed half": "hold"})
    assert [entry.evaluation_id for entry in openings(cycle.ledger())] == [newer[0].evaluation_id]


async def test_what_another_controller_opened_is_not_settled_as_overtaken(tmp_path: Path) -> None:
    """While one controller asks the gate about both, another, which knows the first alone, opens it."""
    cycle = await registered(tmp_path)
    first = await cycle.evaluate(await cycle.save_checkpoint(100))
    behind = (await cycle.parts(cycle.runtime())).deps
    second = await cycle.evaluate(await cycle.save_checkpoint(200))
    stored = [info.key for info in cycle.blobs.list(f"{keys.evaluation_prefix(DOMAIN, second.evaluation_id)}/")]
    report = next(key for key in stored if key.endswith("report.json"))

    async def other() -> None:
        await Verdicts(behind).advance()

    await advanced(meddled(tmp_path, cycle, key=report, other=other))
    deps = await advanced(cycle)
    assert await cycle.events("verdicts") == []
    assert [entry.evaluation_id for entry in openings(cycle.ledger())] == [first.evaluation_id]
    assert deps.stages[first.evaluation_id].name == "confirmation"
    assert deps.stages[second.evaluation_id].name == "queued"


def meddled(directory: Path, cycle: Cycle, *, key: str, other: Callable[[], Coroutine[Any, Any, None]]) -> Cycle:
    """The same servers, seen by a controller whom another one forestalls before it reads that object."""
    loop = asyncio.get_running_loop()

    def meddle() -> None:
        asyncio.run_coroutine_threadsafe(other(), loop).result(WAIT_S)

    blobs: Any = MeddledBlobs(cycle.blobs, call="get", key=key, meddle=meddle)
    return Cycle(directory, bus=cycle.bus, blobs=blobs)


async def test_an_evaluation_that_a_flip_overtook_is_invalid(tmp_path: Path) -> None:
    cycle = await registered(tmp_path)
    waiting = await cycle.evaluate(await cycle.save_checkpoint(100))
    await advanced(cycle)
    other = await cycle.save_checkpoint(200)
    flip_to_checkpoint(
        cycle.blobs,
        DOMAIN,
        Request(actor="ada", reason="by hand", action="promoted", expected_version=1),
        checkpoint_id=other.checkpoint_id,
        manifest_key=other.manifest_key,
        manifest_sha256=other.manifest_sha256,
    )
    await cycle.confirm(waiting)
    await advanced(cycle)
    told = await verdict_of(cycle, waiting.evaluation_id)
    assert told is not None
    assert told.decision == "INVALID"
    assert live_versions(cycle) == [1, 2]


async def test_an_open_alarm_pauses_promotions_until_it_is_cleared(tmp_path: Path) -> None:
    """Reached before the alarm: it waits. Reached under it: the gate holds."""
    cycle = await registered(tmp_path, self_improvement={"mode": "approve"})
    await seen_through(cycle, await cycle.evaluate(await cycle.save_checkpoint(100)))
    raised = DiversityAlarmRaised(
        domain=DOMAIN, shard_id=digest_of("s"), generator_version=1, alarms=("coverage of rare words: .40 < .90",)
    )
    await cycle.bus.publish(raised)
    automatic = Cycle(tmp_path, bus=cycle.bus, blobs=cycle.blobs)
    automatic.scored = cycle.scored
    await advanced(automatic)
    assert live_versions(cycle) == [1]
    report = await automatic.evaluate(await automatic.save_checkpoint(200))
    await advanced(automatic)
    told = await verdict_of(cycle, report.evaluation_id)
    assert told is not None
    assert told.decision == "HOLD"
    assert any("coverage of rare words" in line for line in told.reasons)
    await cycle.bus.publish(DiversityAlarmCleared(domain=DOMAIN, shard_id=digest_of("t"), generator_version=1))
    await advanced(automatic)
    assert live_versions(cycle) == [1, 2]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"opening": 7}, "opening 7, not 1"),
        ({"checkpoint_manifest_sha256": digest_of("another")}, "checkpoint manifest"),
        ({"benchmark_digest": digest_of("another")}, "benchmark"),
        ({"evaluation_id": digest_of("another")}, "evaluation"),
    ],
)
async def test_a_confirmation_of_something_else_is_invalid(
    tmp_path: Path, changes: dict[str, object], reason: str
) -> None:
    cycle = await registered(tmp_path)
    report = await cycle.evaluate(await cycle.save_checkpoint(100))
    await advanced(cycle)
    await cycle.confirm(report, **changes)
    await advanced(cycle)
    await invalid(cycle, report.evaluation_id, reason)


async def test_a_shadow_of_another_batch_is_invalid(tmp_path: Path) -> None:
    cycle = await registered(tmp_path)
    report = await cycle.evaluate(await cycle.save_checkpoint(100))
    await advanced(cycle)
    await cycle.confirm(report)
    await advanced(cycle)
    await cycle.shadow(report, batch_id=digest_of("another"))
    await advanced(cycle)
    await invalid(cycle, report.evaluation_id, "it is about batch")


async def test_a_report_for_the_weights_of_another_checkpoint_is_invalid(tmp_path: Path) -> None:
    cycle = await registered(tmp_path)
    good, other = await cycle.save_checkpoint(100), await cycle.save_checkpoint(200)
    # The good one's figures, said to be those of the other.
    replayed = other.model_copy(update={"manifest_sha256": good.manifest_sha256, "manifest_key": good.manifest_key})
    report = await cycle.evaluate(replayed)
    await advanced(cycle)
    await invalid(cycle, report.evaluation_id, "checkpoint manifest")
    assert openings(cycle.ledger()) == ()


async def test_an_unreadable_report_is_invalid_and_holds_nobody_up(tmp_path: Path) -> None:
    cycle = await registered(tmp_path)
    damaged = await cycle.evaluate(await cycle.save_checkpoint(100))
    for info in list(cycle.blobs.list(f"evaluations/{DOMAIN}/{damaged.evaluation_id}/")):
        if info.key.endswith("report.json"):
            cycle.blobs.put(info.key, b"{}")
    sound = await cycle.evaluate(await cycle.save_checkpoint(200))
    deps = await advanced(cycle)
    await invalid(cycle, damaged.evaluation_id, "no report that may be believed")
    assert deps.evidence.stored(damaged.evaluation_id)[0] is None
    assert deps.stages[sound.evaluation_id].name == "confirmation"


async def invalid(cycle: Cycle, evaluation_id: str, reason: str) -> None:
    told = await verdict_of(cycle, evaluation_id)
    assert told is not None
    assert told.decision == "INVALID"
    assert any(reason in line for line in told.reasons), told.reasons
    assert live_versions(cycle) == [1]


@pytest.mark.parametrize("stage", ["confirmations", "shadows"])
async def test_a_request_in_the_dead_letters_is_given_up(tmp_path: Path, stage: str) -> None:
    cycle = await registered(tmp_path)
    report = await cycle.evaluate(await cycle.save_checkpoint(100))
    await advanced(cycle)
    if stage == "shadows":
        await cycle.confirm(report)
        await advanced(cycle)
    assert isinstance(cycle.bus, MemoryBus)
    delivery = await anext(cycle.bus.consume(f"{stage}.{DOMAIN}", durable="test", max_ack_pending=1))
    await cycle.bus.bury(delivery, service="evaluator", reason="out of memory")
    parts = await cycle.parts(cycle.runtime())
    await Burials(parts.deps).give_up()
    await Conductor(parts.deps).round()
    await invalid(cycle, report.evaluation_id, "out of memory")


async def buried(cycle: Cycle, reason: str) -> None:
    """The evaluator gives the next checkpoint up."""
    delivery = await anext(cycle.bus.consume(f"checkpoints.{DOMAIN}", durable="evaluator", max_ack_pending=1))
    await cycle.bus.bury(delivery, service="evaluator", reason=reason)


async def test_a_checkpoint_that_cannot_be_evaluated_is_invalid_and_can_be_collected(tmp_path: Path) -> None:
    cycle = await registered(tmp_path, self_improvement={"keep_last_n_checkpoints": 1})
    await cycle.freeze_benchmark()
    failed, _ = await cycle.save_checkpoint(100), await cycle.save_checkpoint(200)
    await buried(cycle, "5 attempts, the last: item-007 has no score")
    for _ in range(2):  # a controller that starts again tells it once
        await Burials(await advanced(cycle)).give_up()
    (told,) = await cycle.events("verdicts")
    assert isinstance(told, VerdictReached)
    assert (told.decision, told.checkpoint_id) == ("INVALID", failed.checkpoint_id)
    assert "dead letter 1 of the evaluator: 5 attempts, the last: item-007 has no score" in told.reasons[0]
    deps = await advanced(cycle)
    stands = deps.evidence.verdict(told.evaluation_id)
    assert stands is not None
    verdict, digest = stands
    assert (verdict.decision, verdict.step, verdict.difference) == ("INVALID", 100, None)
    assert (verdict.generator_version, verdict.benchmark_digest) == (1, BENCHMARK)
    assert digest == told.verdict_sha256
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=application(deps)), base_url="http://controller"
    ) as client:
        status = (await client.get("/v1/status")).json()
    lines = milestones(status)
    place = lines.index("step 100 of run1 could not be evaluated: INVALID")
    assert "item-007 has no score" in lines[place + 1]
    assert f"sealed half: 0 of {deps.config.self_improvement.sealed_openings_max} openings used" in lines

    await Conductor(deps).collect_once()
    stored = {info.key.split("/")[3] for info in cycle.blobs.list(f"checkpoints/{DOMAIN}/")}
    assert stored == {"000000200"}


async def test_a_replayed_letter_that_succeeds_has_a_verdict_of_its_own(tmp_path: Path) -> None:
    cycle = await registered(tmp_path)
    saved = await cycle.save_checkpoint(100)
    await buried(cycle, "out of memory")
    await Burials(await advanced(cycle)).give_up()
    await seen_through(cycle, await cycle.evaluate(saved))
    assert live_versions(cycle) == [1, 2]
    deps = await advanced(cycle)
    assert deps.state.not_evaluated() == []
    assert sorted(event.decision for event in deps.state.verdicts.values()) == ["INVALID", "PROMOTE"]


async def test_a_checkpoint_in_stages_is_not_collected(tmp_path: Path) -> None:
    cycle = await registered(tmp_path, self_improvement={"keep_last_n_checkpoints": 1})
    await cycle.evaluate(await cycle.save_checkpoint(100))
    await advanced(cycle)
    for step in (200, 300):
        await cycle.save_checkpoint(step)
    await Conductor(await advanced(cycle)).collect_once()
    stored = {info.key.split("/")[3] for info in cycle.blobs.list(f"checkpoints/{DOMAIN}/")}
    assert "000000100" in stored


async def test_events_between_are_folded_whatever_their_order(tmp_path: Path) -> None:
    """The streams are read one after the other: a confirmation may be known before its evaluation."""
    cycle = await registered(tmp_path)
    report = await cycle.evaluate(await cycle.save_checkpoint(100))
    await seen_through(cycle, report)
    channels = ("evaluations", "confirmations", "shadows", "verdicts")
    events: list[Event] = [event for channel in channels for event in await cycle.events(channel)]
    forward, backward = Projection(domain=DOMAIN), Projection(domain=DOMAIN)
    for event in events:
        forward.apply(event)
    for event in (*reversed(events), *events):
        backward.apply(event)
    assert backward == forward
    assert backward.unsettled() == []
