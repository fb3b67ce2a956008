"""Who may call the API: keys, scopes, and a controller that refuses to be open to a network."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from jupiter.cli import Settings
from jupiter.cli.connection import Api
from jupiter.config.sections import ControllerSection
from jupiter.controller.api.access import check_reachable, needed, read_keys
from jupiter.controller.wiring import application
from jupiter.errors import ConfigError
from jupiter.service import running
from tests.unit.controller.cycle import Cycle, registered

KEYS = {scope: f"key-of-{scope}" for scope in ("read", "operate", "admin")}
LINES = "\n".join(f"{scope} {scope} {hashlib.sha256(key.encode()).hexdigest()}" for scope, key in KEYS.items())


@asynccontextmanager
async def guarded(cycle: Cycle) -> AsyncIterator[httpx.AsyncClient]:
    runtime = cycle.runtime()
    parts = await cycle.parts(runtime)
    app = application(parts.deps)
    app.state.callers = read_keys(LINES)
    transport = httpx.ASGITransport(app=app)
    async with running(runtime, parts), httpx.AsyncClient(transport=transport, base_url="http://controller") as client:
        yield client


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def test_without_a_known_key_nothing_is_told_but_health(tmp_path: Path) -> None:
    async with guarded(Cycle(tmp_path)) as client:
        for headers in ({}, bearer("nonsense"), {"Authorization": "Basic eDp5"}):
            answer = await client.get("/v1/status", headers=headers)
            assert answer.status_code == 401
            assert answer.json()["error"]["code"] == "unauthorized"
        assert (await client.get("/healthz")).status_code == 200


@pytest.mark.parametrize(("scope", "status"), [("read", 403), ("operate", 202), ("admin", 202)])
async def test_a_scope_reaches_so_far(tmp_path: Path, scope: str, status: int) -> None:
    document = {"text": "Some text that is long enough to be a document.", "source": "test", "license": "CC0-1.0"}
    async with guarded(Cycle(tmp_path)) as client:
        assert (await client.get("/v1/status", headers=bearer(KEYS[scope]))).status_code == 200
        answer = await client.post("/v1/documents", json=document, headers=bearer(KEYS[scope]))
        assert answer.status_code == status, answer.text
        forgotten = await client.post("/v1/documents/x/forget", json={}, headers=bearer(KEYS[scope]))
        assert (forgotten.status_code == 403) == (scope != "admin")


@pytest.mark.parametrize(
    ("named", "recorded"),
    [({}, "operate"), ({"actor": "operate"}, "operate"), ({"actor": "controller"}, "operate (for controller)")],
)
async def test_the_ledger_names_the_key_that_acted(tmp_path: Path, named: dict[str, str], recorded: str) -> None:
    cycle = Cycle(tmp_path)
    async with guarded(cycle) as client:
        await registered(cycle)
        saved = await cycle.save_checkpoint(100)
        body = {"checkpoint_id": saved.checkpoint_id, "expected_version": 1, "force": True, **named}
        while (answer := await client.post("/v1/promote", json=body, headers=bearer(KEYS["operate"]))).is_error:
            assert answer.status_code == 404, answer.text  # the controller has not heard of the checkpoint yet
        assert answer.json()["actor"] == recorded


def test_what_cannot_be_undone_is_for_administrators() -> None:
    assert needed("GET", "/v1/history") == "read"
    assert needed("POST", "/v1/rollback") == "operate"
    assert needed("DELETE", "/v1/dead-letters/3") == "admin"
    assert needed("POST", "/v1/documents/abc/forget") == "admin"


def test_a_controller_without_keys_listens_on_this_machine_only() -> None:
    assert check_reachable(ControllerSection()) == ()
    with pytest.raises(ConfigError, match="JUPITER_CONTROLLER__API_KEYS_FILE"):
        check_reachable(ControllerSection(host="0.0.0.0"))  # noqa: S104
    assert len(check_reachable(ControllerSection(host="0.0.0.0", api_keys=LINES))) == 3  # noqa: S104


@pytest.mark.parametrize("line", ["me", "me root " + "0" * 64, "me read key-in-clear"])
def test_a_malformed_line_is_an_error_that_does_not_repeat_it(line: str) -> None:
    with pytest.raises(ConfigError, match="line 2") as caught:
        read_keys(f"# who may call\n{line}\n")
    assert "key-in-clear" not in str(caught.value)


def test_the_command_line_sends_the_key_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPITER_API_KEY", "a-key\n")
    with Api(Settings(overlays=(), assignments=()), "http://127.0.0.1:1") as api:
        assert api._client.headers["authorization"] == "Bearer a-key"
    monkeypatch.setenv("JUPITER_API_KEY", "two words")
    with pytest.raises(ConfigError, match="JUPITER_API_KEY"):
        Api(Settings(overlays=(), assignments=()), "http://127.0.0.1:1")
