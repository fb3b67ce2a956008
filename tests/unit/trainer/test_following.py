"""A follower's probes: what a node without rank 0 answers."""

from __future__ import annotations

import threading

import httpx
import pytest

from jupiter.config.sections import TelemetrySection
from jupiter.errors import ConfigError
from jupiter.trainer.following import answering_probes


def get(port: int, path: str) -> httpx.Response:
    return httpx.get(f"http://127.0.0.1:{port}{path}", timeout=10, trust_env=False)


def test_a_rank_that_waits_for_the_others_is_alive_and_not_ready() -> None:
    met = threading.Event()
    with answering_probes(TelemetrySection(), met) as port:
        assert get(port, "/healthz").status_code == 200
        refused = get(port, "/readyz")
        assert (refused.status_code, refused.json()["reason"]) == (503, "this rank waits for the others")
        met.set()
        assert get(port, "/readyz").status_code == 200
        assert "process_resident_memory_bytes" in get(port, "/metrics").text
    with pytest.raises(httpx.ConnectError):
        get(port, "/healthz")


def test_a_port_that_is_taken_is_one_clear_line() -> None:
    with (
        answering_probes(TelemetrySection(), threading.Event()) as port,
        pytest.raises(ConfigError, match=f"port {port} cannot be listened on"),
        answering_probes(TelemetrySection(port=port), threading.Event()),
    ):
        pass
