"""What the API answers when it refuses: one body for all, which says what was wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from jupiter.controller.api.errors import RESPONSES
from jupiter.controller.views import ErrorBody
from jupiter.controller.wiring import application
from tests.unit.controller.cycle import Cycle

FORM = "application/x-www-form-urlencoded"


@asynccontextmanager
async def client_of(directory: Path) -> AsyncIterator[httpx.AsyncClient]:
    cycle = Cycle(directory)
    deps = (await cycle.parts(cycle.runtime())).deps
    transport = httpx.ASGITransport(app=application(deps))
    async with httpx.AsyncClient(transport=transport, base_url="http://controller") as client:
        yield client


def message_of(answer: httpx.Response, status: int, code: str) -> str:
    assert answer.status_code == status, answer.text
    error = ErrorBody.model_validate(answer.json()).error
    assert error.code == code
    return error.message


@pytest.mark.parametrize("path", ["/v1/nothing", "/nothing", "/v1/status/", "/"])
async def test_what_does_not_exist_is_an_error_like_any_other(tmp_path: Path, path: str) -> None:
    async with client_of(tmp_path) as client:
        message = message_of(await client.get(path), 404, "not_found")
    assert message == f"there is no {path}; /docs lists what there is"


async def test_a_method_that_a_path_does_not_take_is_named(tmp_path: Path) -> None:
    async with client_of(tmp_path) as client:
        answer = await client.put("/v1/status")
        assert message_of(answer, 405, "invalid") == "/v1/status does not take PUT, only GET"
        assert answer.headers["allow"] == "GET"
        message_of(await client.post("/healthz"), 405, "invalid")


async def test_health_and_metrics_are_served_beside_the_api(tmp_path: Path) -> None:
    async with client_of(tmp_path) as client:
        assert (await client.get("/healthz")).json() == {"status": "ok"}
        assert (await client.get("/readyz")).json() == {"status": "ok"}
        metrics = await client.get("/metrics")
        assert "jupiter_evaluations_unsettled" in metrics.text
        assert metrics.headers["content-type"].startswith("text/plain")
        described = (await client.get("/openapi.json")).json()["paths"]
        assert {path for path in described if not path.startswith("/v1/")} == set()


@pytest.mark.parametrize(
    ("content_type", "body", "said"),
    [
        (FORM, "{}", f"the body was sent as {FORM}; send JSON with the header `Content-Type: application/json`"),
        (None, "{}", "the body was sent without a content type; send JSON with the header"),
        ("application/json", '{"text": "a", "sour', "the body is not JSON, at character 14: Unterminated string"),
        ("application/json", "[1]", "the body: Input should be a valid dictionary"),
        ("application/json", "", "the body: Field required"),
        ("application/json", '{"text": "a"}', "source: Field required"),
    ],
)
async def test_a_bad_body_is_named(tmp_path: Path, content_type: str | None, body: str, said: str) -> None:
    headers = {"content-type": content_type} if content_type else {}
    async with client_of(tmp_path) as client:
        answer = await client.post("/v1/documents", content=body, headers=headers)
    assert message_of(answer, 422, "invalid").startswith(said)


async def test_a_bad_parameter_is_named(tmp_path: Path) -> None:
    async with client_of(tmp_path) as client:
        answer = await client.get("/v1/dead-letters?limit=0")
    assert message_of(answer, 422, "invalid").startswith("limit: ")
    assert RESPONSES[422]["model"] is ErrorBody
