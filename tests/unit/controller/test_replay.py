"""`jupiter replay` on a record that a controller stored: the same bit for bit, and loud about every change."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from jupiter import keys
from jupiter.cli import run
from jupiter.controller.deps import Deps
from jupiter.controller.evidence import Inputs
from jupiter.controller.gate import decide
from jupiter.controller.replaying import Stored, replayed
from jupiter.controller.wiring import application
from jupiter.records import canonical_json
from tests.unit.controller.cases import DOMAIN
from tests.unit.controller.cycle import Cycle
from tests.unit.controller.test_promotion import advanced, registered, seen_through
from tests.unit.controller.test_verdicts import overfitted

Json = dict[str, Any]


@pytest.fixture
async def record(tmp_path: Path) -> Path:
    """The folder with inputs and verdict of a promotion."""
    cycle = await registered(tmp_path)
    report = await cycle.evaluate(await cycle.save_checkpoint(100))
    deps = await seen_through(cycle, report)
    inputs, verdict = deps.evidence.stored(report.evaluation_id)
    assert inputs is not None
    folder = tmp_path / "record"
    folder.mkdir()
    (folder / "inputs.json").write_bytes(inputs)
    (folder / "verdict.json").write_bytes(verdict)
    return folder


async def test_the_record_gives_the_same_verdict_bit_for_bit(record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for named in (record, record / "inputs.json"):
        assert run(["replay", str(named)]) == 0
        told = capsys.readouterr()
        assert told.out == "PROMOTE: the same verdict, bit for bit\n"
        assert told.err == (
            "not compared, for it is not at hand: report.json, confirmation.json, the curator's judgement of the "
            "shadow batch, the ledger, the event's digest of the verdict\n"
        )


def test_inputs_without_what_came_later_keep_their_bytes(record: Path) -> None:
    """An older controller reads them, for it refuses fields that it does not know."""
    stored = (record / "inputs.json").read_bytes()
    assert "withdrawn" not in json.loads(stored)["history"]
    assert canonical_json(Inputs.model_validate_json(stored)) == stored


@dataclass(frozen=True)
class Settled:
    """An evaluation that was held, and the controller that it stands at."""

    cycle: Cycle
    deps: Deps
    evaluation_id: str

    async def stored(self) -> Stored:
        """The record as `jupiter replay` gets it from the API."""
        transport = httpx.ASGITransport(app=application(self.deps))
        async with httpx.AsyncClient(transport=transport, base_url="http://controller") as client:
            found = (await client.get(f"/v1/evaluations/{self.evaluation_id}/record")).json()
        originals = found["originals"]
        return Stored(
            inputs=base64.b64decode(found["inputs_base64"]),
            verdict=base64.b64decode(found["verdict_base64"]),
            told=found["verdict_sha256"],
            ledger=self.cycle.ledger(),
            report=canonical_json(originals["report"]) if originals["report"] else None,
            confirmation=canonical_json(originals["confirmation"]) if originals["confirmation"] else None,
            shadow=canonical_json(originals["shadow"]) if originals["shadow"] else None,
            unreadable=tuple(originals["faults"]),
        )

    def key(self, name: str) -> str:
        return f"{keys.evaluation_prefix(DOMAIN, self.evaluation_id)}/{name}"

    def rewrite(self, change: Callable[[Json], None]) -> None:
        """Change the inputs, and store the verdict that follows from them: nothing in the two files disagrees."""
        inputs = json.loads(self.cycle.blobs.get(self.key("inputs.json")))
        change(inputs)
        changed = Inputs.model_validate(inputs)
        data = canonical_json(changed)
        verdict = decide(changed.report, changed.history, changed.config)
        digest = hashlib.sha256(data).hexdigest()
        self.cycle.blobs.put(self.key("inputs.json"), data)
        self.cycle.blobs.put(
            self.key("verdict.json"), canonical_json(verdict.model_copy(update={"inputs_sha256": digest}))
        )


@pytest.fixture
async def held(tmp_path: Path) -> Settled:
    """Better on the half that was looked at, and no better on the sealed one: HOLD."""
    cycle = await registered(tmp_path)
    report = await cycle.evaluate(await cycle.save_checkpoint(100), overfitted())
    await advanced(cycle)
    await cycle.confirm(report)
    deps = await advanced(cycle)
    assert [event.decision for event in deps.state.verdicts.values()] == ["HOLD"]
    return Settled(cycle, deps, report.evaluation_id)


async def test_a_record_of_the_api_is_held_against_all_that_stands(held: Settled) -> None:
    found = replayed(await held.stored())
    assert (found.decision, found.faults, found.not_compared) == ("HOLD", (), ())


def a_source(inputs: Json) -> None:
    inputs["report"]["figures"] = {"seconds": 1}


def a_sealed_answer(inputs: Json) -> None:
    inputs["report"]["confirmation"]["wall_s"] = 99.0


def a_laxer_threshold(inputs: Json) -> None:
    inputs["config"]["improvement_threshold"] = 0.0


def another_ledger(inputs: Json) -> None:
    entry = inputs["history"]["ledger"][-1]
    entry["reason"] = "somebody else's"


@pytest.mark.parametrize(
    ("change", "faults"),
    [
        (a_source, ["inputs.json is not about report.json as the evaluator stored it", "  differs in figures.seconds"]),
        (
            a_sealed_answer,
            [
                "inputs.json is not about confirmation.json as the evaluator stored it",
                "  differs in wall_s: 1.0 there, 99.0 in inputs.json",
            ],
        ),
        (a_laxer_threshold, []),
        (another_ledger, ["the ledger in inputs.json is not the beginning of the ledger that stands"]),
    ],
)
async def test_inputs_and_verdict_rewritten_together_are_told(
    held: Settled, change: Callable[[Json], None], faults: list[str]
) -> None:
    """The two files agree with each other; events, ledger and what the evaluator stored cannot be taken along."""
    named = held.deps.state.verdicts[held.evaluation_id].verdict_sha256
    held.rewrite(change)
    found = replayed(await held.stored())
    digest = hashlib.sha256(held.cycle.blobs.get(held.key("verdict.json"))).hexdigest()
    for fault in (*faults, f"the event told of verdict {named}; this one is {digest}"):
        assert any(line.startswith(fault) for line in found.faults), found.faults
    assert not any("decided again" in line for line in found.faults)


async def test_a_verdict_names_its_inputs(record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Another figure that no check looks at: only the digest tells of it."""
    inputs = json.loads((record / "inputs.json").read_bytes())
    inputs["report"]["wall_s"] = 7.0
    (record / "inputs.json").write_bytes(canonical_json(Inputs.model_validate(inputs)))
    assert run(["replay", str(record)]) == 1
    assert "differs in inputs_sha256" in capsys.readouterr().err


async def test_an_original_beside_the_record_is_compared(
    held: Settled, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = await held.stored()
    assert stored.report is not None
    for name, data in (("inputs", stored.inputs), ("verdict", stored.verdict), ("report", stored.report)):
        (tmp_path / f"{name}.json").write_bytes(data)
    assert run(["replay", str(tmp_path)]) == 0
    assert "not at hand: confirmation.json" in capsys.readouterr().err
    other = json.loads(stored.report)
    other["wall_s"] = 7.0
    (tmp_path / "report.json").write_bytes(canonical_json(other))
    assert run(["replay", str(tmp_path)]) == 1
    assert "differs in wall_s: 7.0 there, 1.0 in inputs.json" in capsys.readouterr().err


async def test_an_original_that_was_written_over_is_told(held: Settled) -> None:
    for info in held.cycle.blobs.list(keys.evaluation_prefix(DOMAIN, held.evaluation_id)):
        if info.key.endswith("-report.json"):
            held.cycle.blobs.put(info.key, held.cycle.blobs.get(info.key).replace(b'"wall_s":1.0', b'"wall_s":2.0'))
    found = replayed(await held.stored())
    assert any("has no report that may be believed" in fault for fault in found.faults)


async def test_a_record_of_an_older_release_is_the_same(held: Settled) -> None:
    """Fields that came later are in neither file, and nobody misses them."""
    stored = await held.stored()
    inputs, verdict = json.loads(stored.inputs), json.loads(stored.verdict)
    for name in ("candidate_weights_sha256", "generator_weights_sha256"):
        del inputs["report"][name]
    del verdict["inputs_sha256"]
    older = replace(stored, inputs=canonical_json(inputs), verdict=canonical_json(verdict), told=None)
    assert replayed(older).faults == ()


def one_answer(inputs: Json) -> None:
    item = inputs["report"]["confirmation"]["items"][0]
    item["candidate"] = 1.0 - item["candidate"]


def the_threshold(inputs: Json) -> None:
    inputs["config"]["improvement_threshold"] = 0.01


def an_alarm(inputs: Json) -> None:
    inputs["history"]["alarms"] = ["distinct-4: .40 < .90"]


def an_opening_less(inputs: Json) -> None:
    inputs["history"]["ledger"].pop()


def the_past(inputs: Json) -> None:
    """The gate does not look at it, so the verdict is the same; the chain is not."""
    inputs["history"]["ledger"][0]["actor"] = "somebody else"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (one_answer, "the record says PROMOTE, decided again it is INVALID"),
        (the_threshold, ">= +0.0500' in the record, '>= +0.0100' recomputed"),
        (an_alarm, "the record says PROMOTE, decided again it is HOLD"),
        (an_opening_less, "the record says PROMOTE, decided again it is INVALID"),
        (the_past, "the ledger in inputs.json is not sound: ledger entry 2"),
    ],
)
async def test_changed_inputs_are_told(
    change: Callable[[Json], None], reason: str, record: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = json.loads((record / "inputs.json").read_bytes())
    change(inputs)
    (record / "inputs.json").write_bytes(canonical_json(Inputs.model_validate(inputs)))
    assert run(["replay", str(record)]) == 1
    told = capsys.readouterr()
    assert reason in told.err
    assert "the same verdict" not in told.out


async def test_a_changed_verdict_is_told_with_every_place(record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verdict = json.loads((record / "verdict.json").read_bytes())
    verdict["decision"], verdict["checks"][0]["figure"] = "HOLD", "v7"
    (record / "verdict.json").write_text(json.dumps(verdict))
    assert run(["replay", str(record)]) == 1
    told = capsys.readouterr().err
    assert "the record says HOLD, decided again it is PROMOTE" in told
    assert "differs in checks[0].figure: 'v7' in the record, 'v1 (" in told


async def test_another_spelling_of_the_same_inputs_is_told(record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inputs = record / "inputs.json"
    inputs.write_text(json.dumps(json.loads(inputs.read_bytes()), indent=1))
    assert run(["replay", str(record)]) == 1
    assert "somebody rewrote it" in capsys.readouterr().err


async def test_half_a_record_is_refused(record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (record / "inputs.json").write_bytes((record / "inputs.json").read_bytes()[:1000])
    assert run(["replay", str(record)]) == 1
    assert "the record is not readable" in capsys.readouterr().err
    (record / "verdict.json").unlink()
    assert run(["replay", str(record)]) == 1
    assert "verdict.json does not exist" in capsys.readouterr().err
