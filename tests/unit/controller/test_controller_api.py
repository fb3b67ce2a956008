"""The HTTP API: what it answers and how it refuses; and the library that speaks to it."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from jupiter import keys, manifests
from jupiter.controller.evidence import Inputs
from jupiter.controller.flips import announcement_of
from jupiter.controller.gate import decide
from jupiter.controller.wiring import application
from jupiter.events import DiversityAlarmRaised, GeneratorPromoted, GeneratorRolledBack, ShardCurated
from jupiter.ledger import flips
from jupiter.records import Sample, canonical_json, digest_of
from jupiter.sample_files import write_json_lines, write_parquet
from jupiter.service import running
from tests.unit.controller.cases import DOMAIN, equal, items
from tests.unit.controller.cycle import Cycle, eventually, registered


@asynccontextmanager
async def serving(cycle: Cycle) -> AsyncIterator[httpx.AsyncClient]:
    """A running controller and a client of its API."""
    runtime = cycle.runtime()
    parts = await cycle.parts(runtime)
    transport = httpx.ASGITransport(app=application(parts.deps))
    async with (
        running(runtime, parts),
        httpx.AsyncClient(transport=transport, base_url="http://controller") as client,
    ):
        yield client


async def body(client: httpx.AsyncClient, path: str, **parameters: Any) -> Any:
    response = await client.get(path, params=parameters)
    assert response.status_code == 200, response.text
    return response.json()


async def test_status_before_anything_happened(tmp_path: Path) -> None:
    async with serving(Cycle(tmp_path)) as client:
        status = await body(client, "/v1/status")
        assert status["generator"] is None
        assert [stage["name"] for stage in status["stages"]] == [
            "documents",
            "benchmark",
            "generation",
            "curation",
            "training",
            "evaluation",
        ]
        assert await body(client, "/v1/versions") == []
        assert await body(client, "/v1/history") == {"entries": [], "live": None}
        assert await body(client, "/v1/evaluations") == []
        assert await body(client, "/v1/samples") == []


async def test_status_shows_progress_and_what_is_waited_for(tmp_path: Path) -> None:
    cycle = Cycle(tmp_path, self_improvement={"eval_every_steps": 50})
    async with serving(cycle) as client:
        await registered(cycle)
        await cycle.load(cycle.ledger()[0])
        await cycle.publish_documents(3)
        await cycle.say(
            "trainer", stage="training", done=60, total=100, unit="steps", rate_per_s=2.0, figures={"step": 60}
        )
        await cycle.say("generator", stage="generating", done=10, total=64, unit="samples", rate_per_s=3.0)

        async def settled() -> Any:
            return await body(client, "/v1/status")

        status = await settled()
        while "the benchmark to be frozen" not in status["waits_for"] or not status["documents_training"]:
            status = await settled()
        stages = {stage["name"]: stage for stage in status["stages"]}
        assert stages["training"]["eta_s"] == 20
        assert stages["generation"]["eta_s"] == 18
        assert stages["curation"]["state"] == "absent"
        assert status["next_evaluation"] == {"step": 100, "current_step": 60, "eta_s": 20.0}
        assert status["generator"]["version"] == 1
        assert status["generator"]["served_by"] == ["generator-0"]
        assert status["waits_for"] == ["the benchmark to be frozen"]
        assert status["accounting"]["lost"] == 0


async def test_evaluations_with_report_and_verdict(tmp_path: Path) -> None:
    cycle = Cycle(tmp_path)
    async with serving(cycle) as client:
        await registered(cycle)
        report = await cycle.evaluate(await cycle.save_checkpoint(100), items(equal))
        await eventually(lambda: cycle.blobs.stat(keys.verdict_key(DOMAIN, report.evaluation_id)))
        while not (listed := await body(client, "/v1/evaluations")) or listed[0]["decision"] is None:
            pass
        assert listed[0]["epoch"] == 1
        assert listed[0]["decision"] in {"HOLD", "REJECT"}
        assert (listed[0]["stage"], listed[0]["confirmation"], listed[0]["shadow"]) == ("settled", None, None)
        detail = await body(client, f"/v1/evaluations/{report.evaluation_id[:10]}")
        assert len(detail["report"]["items"]) == len(report.items)
        assert {check["name"] for check in detail["verdict"]["checks"]} >= {"development improvement", "minimum steps"}
        missing = await client.get("/v1/evaluations/ffff")
        assert missing.status_code == 404
        assert missing.json()["error"]["code"] == "not_found"


async def test_an_evaluation_shows_its_stages_and_can_be_decided_again(tmp_path: Path) -> None:
    cycle = Cycle(tmp_path)
    async with serving(cycle) as client:
        await registered(cycle)
        await cycle.make_batch()
        report = await cycle.evaluate(await cycle.save_checkpoint(100))
        path = f"/v1/evaluations/{report.evaluation_id}"
        while (await body(client, path))["evaluation"]["stage"] != "confirmation":
            pass
        early = await client.get(f"{path}/record")
        assert early.status_code == 404
        assert "the sealed half is scored" in early.json()["error"]["message"]
        assert (await body(client, "/v1/status"))["openings"] == 1
        await cycle.answer(report)
        while (detail := await body(client, path))["evaluation"]["stage"] != "settled":
            pass
        view = detail["evaluation"]
        assert view["decision"] == "PROMOTE"
        assert view["confirmation"]["opening"] == 1
        assert view["confirmation"]["difference"] == detail["report"]["confirmation"]["difference"]
        assert view["shadow"] == {"items": 40, "candidate_accepted": 30, "incumbent_accepted": 30}
        record = await body(client, f"{path}/record")
        inputs = Inputs.model_validate_json(base64.b64decode(record["inputs_base64"]))
        digest = hashlib.sha256(base64.b64decode(record["inputs_base64"])).hexdigest()
        verdict = decide(inputs.report, inputs.history, inputs.config)
        again = canonical_json(verdict.model_copy(update={"inputs_sha256": digest}))
        assert again == base64.b64decode(record["verdict_base64"])
        assert again == cycle.blobs.get(keys.verdict_key(DOMAIN, report.evaluation_id))


async def test_an_open_alarm_is_shown_and_pauses_promotion_by_hand(tmp_path: Path) -> None:
    cycle = Cycle(tmp_path, self_improvement={"mode": "approve"})
    async with serving(cycle) as client:
        await registered(cycle)
        report = await cycle.evaluate(await cycle.save_checkpoint(100))
        await cycle.answer(report)
        while not (await body(client, "/v1/status"))["pending_approval"]:
            pass
        line = "coverage of rare words: .40 < .90"
        await cycle.bus.publish(
            DiversityAlarmRaised(domain=DOMAIN, shard_id=digest_of("s"), generator_version=1, alarms=(line,))
        )
        while (alarm := (await body(client, "/v1/status"))["diversity_alarm"]) is None:
            pass
        assert alarm == {"shard_id": digest_of("s"), "generator_version": 1, "alarms": [line]}
        asked = {"evaluation_id": report.evaluation_id, "expected_version": 1}
        paused = await client.post("/v1/promote", json=asked)
        assert paused.status_code == 422
        assert line in paused.json()["error"]["message"]
        forced = await client.post("/v1/promote", json={**asked, "force": True}, headers={"Idempotency-Key": "k1"})
        assert forced.json()["version"] == 2
        again = await client.post("/v1/promote", json=asked, headers={"Idempotency-Key": "k1"})
        assert again.json() == forced.json()
        await client.post("/v1/rollback", json={"expected_version": 2})
        by_version = {"version": 2, "expected_version": 1}
        paused = await client.post("/v1/promote", json=by_version)
        assert paused.status_code == 422
        assert line in paused.json()["error"]["message"]
        forced = await client.post("/v1/promote", json={**by_version, "force": True})
        assert forced.json()["version"] == 2


async def test_a_rollback_can_take_the_data_back(tmp_path: Path) -> None:
    cycle = Cycle(tmp_path)
    async with serving(cycle) as client:
        await registered(cycle)
        await cycle.answer(await cycle.evaluate(await cycle.save_checkpoint(100)))
        await eventually(lambda: len(flips(cycle.ledger())) == 2)
        refused = await client.post("/v1/rollback", json={"expected_version": 2, "rewind": True})
        assert refused.status_code == 422
        assert "quarantine" in refused.json()["error"]["message"]
        asked = {"expected_version": 2, "quarantine": True, "rewind": True}
        back = await client.post("/v1/rollback", json=asked)
        assert (back.json()["quarantined"], back.json()["rewind"]) == (True, True)
        entry = cycle.ledger()[-1]
        assert (entry.version, entry.quarantined, entry.rewind) == (1, True, True)


async def test_promote_and_rollback_by_hand(tmp_path: Path) -> None:
    cycle = Cycle(tmp_path, self_improvement={"mode": "approve"})
    async with serving(cycle) as client:
        await registered(cycle)
        report = await cycle.evaluate(await cycle.save_checkpoint(100))
        await cycle.answer(report)
        while not (await body(client, "/v1/status"))["pending_approval"]:
            pass
        asked = {"evaluation_id": report.evaluation_id, "expected_version": 1, "actor": "ada"}
        stale = await client.post("/v1/promote", json={**asked, "expected_version": 7})
        assert stale.status_code in {409, 422}
        first = await client.post("/v1/promote", json=asked, headers={"Idempotency-Key": "k1"})
        assert first.status_code == 200, first.text
        again = await client.post("/v1/promote", json=asked, headers={"Idempotency-Key": "k1"})
        assert again.json() == first.json()
        assert first.json()["version"] == 2
        assert first.json()["actor"] == "ada"
        late = await client.post("/v1/promote", json=asked)
        assert late.status_code == 409
        assert "version 2 is live, not 1" in late.json()["error"]["message"]
        back = await client.post("/v1/rollback", json={"expected_version": 2, "actor": "ada", "reason": "odd answers"})
        assert back.json()["version"] == 1
        assert len(flips(cycle.ledger())) == 3
        await eventually(lambda: len(json.loads((tmp_path / "pipeline_state.json").read_text())["promotions"]) == 2)
        assert [event.event_id for event in await cycle.events("generators")] == [
            (GeneratorRolledBack if entry.action == "rolled_back" else GeneratorPromoted)
            .model_validate(announcement_of(entry))
            .event_id
            for entry in flips(cycle.ledger())
        ]
        for refused, said in (
            (
                await client.post("/v1/rollback", json={"version": 2, "expected_version": 1}),
                "promote version 2 instead",
            ),
            (await client.post("/v1/promote", json=asked), "promoted before, as version 2"),
        ):
            assert refused.status_code == 422
            assert said in refused.json()["error"]["message"]
        another = await client.post(
            "/v1/promote", json={"version": 1, "expected_version": 1}, headers={"Idempotency-Key": "k1"}
        )
        assert another.status_code == 409
        assert "used for another flip" in another.json()["error"]["message"]
        forward = await client.post("/v1/promote", json={"version": 2, "expected_version": 1})
        assert forward.json()["version"] == 2
        versions = await body(client, "/v1/versions")
        assert [(version["version"], version["live"]) for version in versions] == [(1, False), (2, True)]


async def test_what_the_gate_did_not_pass_needs_force(tmp_path: Path) -> None:
    cycle = Cycle(tmp_path)
    async with serving(cycle) as client:
        await registered(cycle)
        saved = await cycle.save_checkpoint(100)
        report = await cycle.evaluate(saved, items(equal))
        await eventually(lambda: cycle.blobs.stat(keys.verdict_key(DOMAIN, report.evaluation_id)))
        asked = {"checkpoint_id": saved.checkpoint_id, "expected_version": 1}
        refused = await client.post("/v1/promote", json=asked)
        assert refused.status_code == 422
        assert "force" in refused.json()["error"]["message"]
        forced = await client.post("/v1/promote", json={**asked, "force": True, "reason": "a demonstration"})
        assert forced.status_code == 200, forced.text
        assert "(forced)" in forced.json()["reason"]


@pytest.mark.parametrize(
    ("path", "asked", "message"),
    [
        ("/v1/promote", {"expected_version": 1}, "names 0"),
        ("/v1/promote", {"expected_version": 1, "version": 1, "checkpoint_id": "a"}, "names 2"),
        ("/v1/promote", {"version": 1}, "expected_version: Field required"),
        ("/v1/rollback", {"expected_version": 1, "verzion": 2}, "verzion: Extra inputs"),
        ("/v1/documents", {"text": "", "source": "x"}, "text: String should have at least 1 character"),
    ],
)
async def test_malformed_requests_are_answered_in_one_line(
    tmp_path: Path, path: str, asked: dict[str, Any], message: str
) -> None:
    cycle = Cycle(tmp_path)
    async with serving(cycle) as client:
        response = await client.post(path, json=asked)
        assert response.status_code == 422
        assert message in response.json()["error"]["message"]
        assert "\n" not in response.json()["error"]["message"]


async def test_flips_before_there_is_a_generator_are_conflicts(tmp_path: Path) -> None:
    async with serving(Cycle(tmp_path)) as client:
        response = await client.post("/v1/rollback", json={"expected_version": 1})
        assert response.status_code == 409
        assert "no generator is registered yet" in response.json()["error"]["message"]


async def test_history_at_a_time(tmp_path: Path) -> None:
    cycle = Cycle(tmp_path)
    async with serving(cycle) as client:
        await registered(cycle)
        answer = await body(client, "/v1/history", live_at=datetime(2020, 1, 1, tzinfo=UTC).isoformat())
        assert answer["live"] is None
        assert len(answer["entries"]) == 1
        now = await body(client, "/v1/history", live_at=datetime.now(UTC).isoformat())
        assert now["live"]["version"] == 1
        vague = await client.get("/v1/history", params={"live_at": "2026-01-01T00:00:00"})
        assert vague.status_code == 422
        assert "time zone" in vague.json()["error"]["message"]


async def test_a_tampered_ledger_is_shown_as_such(tmp_path: Path) -> None:
    cycle = Cycle(tmp_path)
    async with serving(cycle) as client:
        await registered(cycle)
        # What the rounds read is read by now, so only who verifies the whole chain meets the change.
        assert (await body(client, "/v1/status"))["generator"]["version"] == 1
        entry = cycle.ledger()[0]
        cycle.blobs.put(keys.ledger_key(DOMAIN, 1), canonical_json(entry.model_copy(update={"sequence": 9})))
        response = await client.get("/v1/history")
        assert response.status_code == 422
        assert "entry 1" in response.json()["error"]["message"]


async def test_documents_are_published_as_over_nats(tmp_path: Path) -> None:
    cycle = Cycle(tmp_path)
    async with serving(cycle) as client:
        document = {"text": "A passage.", "source": "test://one"}
        first = await client.post("/v1/documents", json=document)
        assert first.status_code == 202
        assert first.json() == {"subject": f"documents.{DOMAIN}", "sequence": 1, "duplicate": False}
        assert (await client.post("/v1/documents", json=document)).json()["duplicate"]
        delivery = await anext(cycle.bus.consume(f"documents.{DOMAIN}", durable="test", max_ack_pending=1))
        assert json.loads(delivery.data)["text"] == "A passage."


async def test_dead_letters_are_listed_replayed_and_dropped(tmp_path: Path) -> None:
    cycle = Cycle(tmp_path)
    subject = f"documents.{DOMAIN}"
    for text in ("one", "two"):
        await cycle.bus.publish_raw(subject, text.encode())
    deliveries = cycle.bus.consume(subject, durable="test", max_ack_pending=2)
    for _ in range(2):
        await cycle.bus.bury(await anext(deliveries), service="curator", reason="not JSON")
    async with serving(cycle) as client:
        letters = await body(client, "/v1/dead-letters")
        assert [(letter["data"], letter["reason"]) for letter in letters] == [("one", "not JSON"), ("two", "not JSON")]
        replayed = await client.post(f"/v1/dead-letters/{letters[0]['sequence']}/replay")
        assert replayed.json() == {"sequence": 3}
        dropped = await client.delete(f"/v1/dead-letters/{letters[1]['sequence']}")
        assert dropped.status_code == 204
        assert await body(client, "/v1/dead-letters") == []
        assert (await client.delete("/v1/dead-letters/99")).status_code == 404


async def test_newest_samples_with_the_reason_of_each_rejection(tmp_path: Path) -> None:
    cycle = Cycle(tmp_path)
    for number in (1, 2):
        await shard(cycle, number)
    async with serving(cycle) as client:
        both = await body(client, "/v1/samples", limit=1)
        assert [sample["accepted"] for sample in both] == [True, False]
        assert both[0]["sample"]["response"] == "answer 2"
        assert (both[1]["reason"], both[1]["filter"]) == ("repeats its prompt", "prompt_leakage")
        rejected = await body(client, "/v1/samples", accepted=False, limit=5)
        assert [sample["sample"]["response"] for sample in rejected] == ["bad 2", "bad 1"]
        real = await body(client, "/v1/samples", accepted=True, origin="real")
        assert real == []
        assert (await client.get("/v1/samples", params={"limit": 0})).status_code == 422


async def shard(cycle: Cycle, number: int) -> None:
    """What the curator commits: one accepted sample and one rejected."""
    sample = Sample(
        sample_id=digest_of("sample", number),
        origin="synthetic",
        instruction="a question",
        response=f"answer {number}",
        document_id=digest_of("document"),
        task="question_answer",
    )
    rejected = {
        "reason": "repeats its prompt",
        "filter": "prompt_leakage",
        "score": None,
        "sample": {"response": f"bad {number}", "seed": "malformed"},
    }
    shard_id = digest_of("shard", number)
    prefix = keys.shard_prefix(DOMAIN, shard_id)
    contents = {"samples.parquet": write_parquet([sample]), "rejected.jsonl.zst": write_json_lines([rejected])}
    files = tuple(
        manifests.upload_bytes(cycle.blobs, prefix=prefix, name=name, data=data) for name, data in contents.items()
    )
    committed = manifests.commit(
        cycle.blobs, prefix=prefix, kind="shard", domain=DOMAIN, work_id=shard_id, files=files, details={}
    )
    await cycle.bus.publish(
        ShardCurated(
            domain=DOMAIN,
            shard_id=shard_id,
            batch_id=shard_id,
            generator_version=1,
            manifest_key=committed.key,
            manifest_sha256=committed.sha256,
            samples=1,
            tokens=10,
            real_tokens=0,
            accepted=1,
            candidates=2,
            dropped={"repeats its prompt": 1},
        )
    )


async def test_health_and_metrics_stand_beside_the_api(tmp_path: Path) -> None:
    cycle = Cycle(tmp_path)
    async with serving(cycle) as client:
        assert (await client.get("/healthz")).json() == {"status": "ok"}
        assert (await client.get("/readyz")).status_code == 200
        assert "jupiter_handled" in (await client.get("/metrics")).text
        cycle.blobs.available = False
        down = await client.get("/v1/history")
        assert (down.status_code, down.json()["error"]["code"]) == (503, "unavailable")
        cycle.blobs.available = True


async def test_pipeline_state_is_as_the_document_shows_it(tmp_path: Path) -> None:
    cycle = Cycle(tmp_path)
    async with serving(cycle):
        await registered(cycle)
        report = await cycle.evaluate(await cycle.save_checkpoint(100))
        await cycle.answer(report)
        await eventually(lambda: json.loads((tmp_path / "pipeline_state.json").read_text())["generator_version"] == 2)
    state = json.loads((tmp_path / "pipeline_state.json").read_text())
    assert state["current_epoch"] == 1
    assert state["scores"] == [report.candidate.composite]
    assert state["improvement_threshold"] == 0.05
    assert state["epochs"][0]["decision"] == "PROMOTE"
    assert state["epochs"][0]["confirmation"]["opening"] == 1
    assert (state["diversity_alarm"], state["plateau"]) == (None, [])
    assert state["promotions"][0]["epoch"] == 1
    assert json.loads((tmp_path / "data" / "pipeline_state.json").read_text()) == state
