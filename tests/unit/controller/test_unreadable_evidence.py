"""Stored evidence that cannot be read, being damaged or newer: it is refused or left, and ends no controller."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from jupiter import keys
from jupiter.controller.aftermath import Acceptance, Failure
from jupiter.controller.conductor import Conductor
from jupiter.controller.deps import Deps
from jupiter.controller.diversity import Figure
from jupiter.controller.evidence import REASON_CHARS_MAX, Inputs, Refusal
from jupiter.controller.gate import Check, History, Verdict
from jupiter.controller.promotion import wanted
from jupiter.controller.wiring import application
from jupiter.events import VerdictReached
from jupiter.records import SharedRecord, canonical_json, digest_of
from jupiter.reports import EvaluationReport
from tests.unit.controller.cases import DOMAIN, equal, history, improvement, items, report
from tests.unit.controller.cycle import Cycle
from tests.unit.controller.test_promotion import live_versions, registered, seen_through
from tests.unit.controller.test_verdicts import decided, invalid, verdict_of
from tests.unit.infra.test_newer_records import ADDED, completed, newer


def key_of(evaluation_id: str, name: str) -> str:
    return f"{keys.evaluation_prefix(DOMAIN, evaluation_id)}/{name}"


async def round_of(cycle: Cycle) -> Deps:
    """Start a controller and let it do one whole round, as it does after every restart."""
    deps = (await cycle.parts(cycle.runtime())).deps
    await Conductor(deps).round()
    return deps


async def promotable(directory: Path) -> tuple[Cycle, str]:
    """A cycle with a PROMOTE verdict that waits for a person."""
    cycle = await registered(directory, self_improvement={"mode": "approve"})
    found = await cycle.evaluate(await cycle.save_checkpoint(100))
    deps = await seen_through(cycle, found)
    assert [verdict.evaluation_id for verdict, _ in await wanted(deps)] == [found.evaluation_id]
    return cycle, found.evaluation_id


async def evaluated(cycle: Cycle, data: bytes) -> str:
    """An evaluation whose report is these bytes, as its evaluator stored them."""
    saved = await cycle.save_checkpoint(100)
    known = report(items(equal, count=12), checkpoint_id=saved.checkpoint_id, evaluation_id=digest_of("spoilt"))
    event = completed(cycle.blobs, known, data)
    await cycle.bus.publish(event)
    return event.evaluation_id


async def detail_of(deps: Deps, evaluation_id: str) -> Any:
    transport = httpx.ASGITransport(app=application(deps))
    async with httpx.AsyncClient(transport=transport, base_url="http://controller") as client:
        answer = await client.get(f"/v1/evaluations/{evaluation_id}")
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.mark.parametrize("field", ["x", "x" * 3_000])
async def test_a_report_with_thousands_of_faults_is_invalid_for_the_first_of_them(tmp_path: Path, field: str) -> None:
    cycle = await registered(tmp_path)
    evaluation_id = await evaluated(cycle, canonical_json({"items": [{field: 1}] * 3_000}))
    await round_of(cycle)
    await invalid(cycle, evaluation_id, "no report that may be believed: ")
    told = await verdict_of(cycle, evaluation_id)
    assert told is not None
    assert len(told.reasons[0]) <= REASON_CHARS_MAX


async def test_a_verdict_that_an_older_release_stored_with_its_whole_reason_is_told(tmp_path: Path) -> None:
    """It was stored, could not be published, and stands for good."""
    cycle = await registered(tmp_path)
    found = await cycle.evaluate(await cycle.save_checkpoint(100))
    fault = Check(name="evidence", figure="field required; " * 15_000, bound="evidence", outcome="invalid")
    verdict = Verdict(
        evaluation_id=found.evaluation_id,
        checkpoint_id=found.checkpoint_id,
        step=100,
        generator_version=1,
        benchmark_digest=found.benchmark_digest,
        decision="INVALID",
        checks=(fault,),
        difference=None,
        ledger_sequence=1,
        look=0,
    )
    cycle.blobs.put(key_of(found.evaluation_id, "verdict.json"), canonical_json(verdict))
    deps = await round_of(cycle)
    await invalid(cycle, found.evaluation_id, "field required; ")
    stands = deps.evidence.verdict(found.evaluation_id)
    assert stands is not None
    assert stands[0] == verdict


async def test_a_damaged_verdict_promotes_nobody_and_holds_nobody_up(tmp_path: Path) -> None:
    cycle, evaluation_id = await promotable(tmp_path)
    cycle.blobs.put(key_of(evaluation_id, "verdict.json"), b"{}")
    automatic = Cycle(tmp_path, bus=cycle.bus, blobs=cycle.blobs)
    await automatic.evaluate(await automatic.save_checkpoint(200), items(equal))
    deps = await round_of(automatic)
    assert await wanted(deps) == []
    assert live_versions(cycle) == [1]
    refusal = deps.evidence.refusal(evaluation_id)
    assert refusal is not None
    assert "no verdict.json that may be believed: evaluation_id: Field required" in refusal.reason
    assert deps.state.unsettled() == []  # the later evaluation was settled all the same
    shown = await detail_of(deps, evaluation_id)
    assert (shown["verdict"], shown["refusal"]) == (None, refusal.reason)


async def test_a_damaged_verdict_of_what_is_settled_or_acted_on_is_shown_and_refuses_nothing(tmp_path: Path) -> None:
    cycle = await registered(tmp_path)
    held = await cycle.evaluate(await cycle.save_checkpoint(100), items(equal))
    await round_of(cycle)
    promoted = await cycle.evaluate(await cycle.save_checkpoint(200))
    await seen_through(cycle, promoted)
    for found in (held, promoted):
        cycle.blobs.put(key_of(found.evaluation_id, "verdict.json"), b"not even JSON")
    deps = await round_of(cycle)
    assert live_versions(cycle) == [1, 2]
    for found in (held, promoted):
        assert deps.evidence.refusal(found.evaluation_id) is None
        assert "no verdict.json that may be believed" in (await detail_of(deps, found.evaluation_id))["refusal"]


async def test_a_verdict_that_was_damaged_before_it_was_told_is_told_as_invalid(tmp_path: Path) -> None:
    cycle = await registered(tmp_path)
    found = await cycle.evaluate(await cycle.save_checkpoint(100))
    cycle.blobs.put(key_of(found.evaluation_id, "verdict.json"), b"{}")
    await round_of(cycle)
    await invalid(cycle, found.evaluation_id, "no verdict.json that may be believed")
    assert cycle.blobs.get(key_of(found.evaluation_id, "verdict.json")) == b"{}"


async def test_a_damaged_refusal_refuses_all_the_same(tmp_path: Path) -> None:
    cycle, evaluation_id = await promotable(tmp_path)
    cycle.blobs.put(key_of(evaluation_id, "refusal.json"), b"{}")
    deps = await round_of(Cycle(tmp_path, bus=cycle.bus, blobs=cycle.blobs))
    assert live_versions(cycle) == [1]
    assert "no refusal.json that may be believed" in (await detail_of(deps, evaluation_id))["refusal"]


FIGURE = Figure(name="distinct_1", value=0.5, reference=0.5, excess=0.0, bound=0.1, past=False, line="so it is")
ACCEPTANCE = Acceptance(accepted=1, eligible=2, share=0.5, standard_error=0.1)
RECORDS = (
    Verdict(
        evaluation_id="e",
        checkpoint_id="c",
        step=1,
        generator_version=1,
        benchmark_digest="b",
        decision="HOLD",
        checks=(Check(name="n", figure="f", bound="b", outcome="hold"),),
        difference=0.1,
        ledger_sequence=1,
        look=1,
        inputs_sha256="s",
    ),
    Refusal(evaluation_id="e", reason="r", time="now"),
    Failure(
        reason="r",
        version=2,
        previous_version=1,
        shards=("s",),
        previous_shards=("t",),
        acceptance=ACCEPTANCE,
        previous_acceptance=ACCEPTANCE,
        acceptance_drop_lower=0.1,
        figures=(FIGURE,),
    ),
)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_what_a_newer_controller_added_is_passed_over_and_passed_on(record: SharedRecord) -> None:
    stored = canonical_json(newer(record))
    assert canonical_json(type(record).model_validate_json(stored)) == stored


async def test_a_newer_controllers_verdict_is_acted_on(tmp_path: Path) -> None:
    cycle, evaluation_id = await promotable(tmp_path)
    key = key_of(evaluation_id, "verdict.json")
    stored = Verdict.model_validate_json(cycle.blobs.get(key))
    cycle.blobs.put(key, canonical_json(newer(stored)))
    fresh = Cycle(tmp_path, blobs=cycle.blobs)  # other streams: the event tells of the verdict as it stands
    fresh.scored = cycle.scored
    for channel in ("models", "generation", "batches", "checkpoints", "evaluations", "confirmations", "shadows"):
        for event in await cycle.events(channel):
            await fresh.bus.publish(event)
    await round_of(fresh)
    assert live_versions(cycle) == [1, 2]


async def test_what_a_newer_controller_has_begun_to_settle_is_left_to_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cycle = await registered(tmp_path)
    found = await cycle.evaluate(await cycle.save_checkpoint(100))
    begun = begun_by_a_newer_one(cycle, found)
    other = await cycle.evaluate(await cycle.save_checkpoint(200), items(equal))
    deps = (await cycle.parts(cycle.runtime())).deps
    conductor = Conductor(deps)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            await conductor.round()
    (warning,) = [entry.message for entry in caplog.records if "inputs.json" in entry.message]
    assert "of a newer controller" in warning
    assert "config.not_known_yet" in warning
    assert [event.evaluation_id for event in deps.state.unsettled()] == [found.evaluation_id]
    assert warning == deps.stages[found.evaluation_id].detail
    assert cycle.blobs.get(key_of(found.evaluation_id, "inputs.json")) == begun
    assert cycle.blobs.stat(key_of(found.evaluation_id, "verdict.json")) is None
    assert decided(deps, other.evaluation_id)[0] in {"HOLD", "REJECT"}

    await told_by_the_newer_one(cycle, found)
    assert (await round_of(cycle)).state.unsettled() == []


def begun_by_a_newer_one(cycle: Cycle, found: EvaluationReport) -> bytes:
    """Store inputs with a setting that this release does not know."""
    inputs = Inputs(report=found, history=history(), config=improvement())
    config = {**inputs.config.model_dump(mode="json"), **ADDED}
    begun = canonical_json({**inputs.model_dump(mode="json"), "config": config})
    cycle.blobs.put(key_of(found.evaluation_id, "inputs.json"), begun)
    return begun


async def told_by_the_newer_one(cycle: Cycle, found: EvaluationReport) -> None:
    await cycle.bus.publish(
        VerdictReached(
            domain=DOMAIN,
            evaluation_id=found.evaluation_id,
            decision="HOLD",
            reasons=("not yet",),
            verdict_key=keys.verdict_key(DOMAIN, found.evaluation_id),
        )
    )


async def test_a_verdict_of_another_schema_version_is_left_and_not_refused(tmp_path: Path) -> None:
    cycle, evaluation_id = await promotable(tmp_path)
    key = key_of(evaluation_id, "verdict.json")
    cycle.blobs.put(key, cycle.blobs.get(key).replace(b'"schema_version":1', b'"schema_version":2'))
    deps = await round_of(Cycle(tmp_path, bus=cycle.bus, blobs=cycle.blobs))
    assert live_versions(cycle) == [1]
    assert deps.evidence.refusal(evaluation_id) is None
    assert "of a newer controller" in (await detail_of(deps, evaluation_id))["refusal"]


async def test_damaged_inputs_are_invalid_also_where_they_hold_an_unknown_field(tmp_path: Path) -> None:
    cycle = await registered(tmp_path)
    found = await cycle.evaluate(await cycle.save_checkpoint(100))
    cycle.blobs.put(key_of(found.evaluation_id, "inputs.json"), canonical_json({**ADDED, "history": {}}))
    await round_of(cycle)
    await invalid(cycle, found.evaluation_id, "no inputs.json that may be believed")


def test_what_a_verdict_follows_from_is_strict() -> None:
    with pytest.raises(ValidationError, match="not_known_yet"):
        History.model_validate({**ADDED})
    assert not issubclass(Inputs, SharedRecord)
