"""`jupiter replay` on a record that a controller process left in a real store: through its API, then offline."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from jupiter import keys
from jupiter.bus.jetstream import JetStreamBus
from jupiter.cli import run
from tests.integration.test_controller_process import WAIT_S, _on_servers, controller_process, flipped
from tests.servers import NatsServer, S3Server

pytestmark = pytest.mark.connected


async def test_a_verdict_in_a_real_store_is_recomputed_and_a_changed_one_told(
    nats_server: NatsServer,
    s3_server: S3Server,
    bus: JetStreamBus,
    domain: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cycle = _on_servers(nats_server, s3_server, bus, domain, tmp_path)
    api = ["--api", f"http://127.0.0.1:{cycle.config.controller.port}"]
    with controller_process(cycle, tmp_path):
        await cycle.import_base()
        await flipped(cycle, 1)
        report = await cycle.evaluate(await cycle.save_checkpoint(100))
        await cycle.answer(report, wait_s=WAIT_S)
        await flipped(cycle, 2)
        assert await asyncio.to_thread(run, ["replay", report.evaluation_id[:10], *api]) == 0
        assert capsys.readouterr().out == "PROMOTE: the same verdict, bit for bit\n"

        key = keys.verdict_key(domain, report.evaluation_id)
        verdict = cycle.blobs.get(key)
        cycle.blobs.put(key, verdict.replace(b'"look":1', b'"look":2'))
        assert await asyncio.to_thread(run, ["replay", report.evaluation_id, *api]) == 1
        told = capsys.readouterr().err
        assert "differs in look: 2 in the record, 1 recomputed" in told
        assert "the ledger's promotion rests on verdict" in told
        cycle.blobs.put(key, verdict)

        assert await asyncio.to_thread(run, ["replay", "f" * 64, *api]) == 1
        assert "no evaluation" in capsys.readouterr().err
    for name in ("inputs.json", "verdict.json"):
        stored = cycle.blobs.get(f"{keys.evaluation_prefix(domain, report.evaluation_id)}/{name}")
        (tmp_path / name).write_bytes(stored)
    # No controller answers any more.
    assert run(["replay", str(tmp_path)]) == 0
