"""The health page: what a probe and Prometheus see."""

from __future__ import annotations

import httpx

from jupiter.health import probe_app
from jupiter.telemetry import Telemetry


async def test_whether_a_service_is_ready_is_a_metric_too() -> None:
    reasons: list[str | None] = ["NATS stores no canary", None]
    telemetry = Telemetry()

    async def refusal() -> str | None:
        return reasons[0]

    app = probe_app(refusal, telemetry=telemetry)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
        refused = await client.get("/readyz")
        assert (refused.status_code, refused.json()["reason"]) == (503, "NATS stores no canary")
        assert "jupiter_ready 0.0" in (await client.get("/metrics")).text
        del reasons[0]
        assert (await client.get("/readyz")).status_code == 200
        assert "jupiter_ready 1.0" in (await client.get("/metrics")).text
