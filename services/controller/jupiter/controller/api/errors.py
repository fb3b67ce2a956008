"""Errors as answers: one body for all, with a code a script can read and a message a person can.

Owns: which error has which status. Does not know: who raises it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from jupiter.controller.api.access import Forbidden, Unauthorized
from jupiter.controller.views import ErrorBody, ErrorView
from jupiter.errors import Conflict, IntegrityError, JupiterError, NotFound, Rejected, Unavailable

__all__ = ["RESPONSES", "install"]

_STATUS: dict[type[JupiterError], tuple[int, str]] = {
    Unauthorized: (401, "unauthorized"),
    Forbidden: (403, "forbidden"),
    NotFound: (404, "not_found"),
    Conflict: (409, "conflict"),
    Rejected: (422, "refused"),
    IntegrityError: (422, "refused"),
    Unavailable: (503, "unavailable"),
}

RESPONSES: dict[int | str, dict[str, Any]] = {
    401: {"model": ErrorBody, "description": "No key, or an unknown one"},
    403: {"model": ErrorBody, "description": "The key's scope does not reach so far"},
    404: {"model": ErrorBody, "description": "No such thing"},
    409: {"model": ErrorBody, "description": "Another version is live, or somebody was first"},
    422: {"model": ErrorBody, "description": "The request is malformed, or cannot be carried out"},
    503: {"model": ErrorBody, "description": "The bus or the object store did not answer"},
}


def install(app: FastAPI) -> None:
    """Answer every error of ours, of validation and of routing with an `ErrorBody`."""
    app.add_exception_handler(JupiterError, _jupiter)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)


async def _jupiter(_: Request, error: Exception) -> JSONResponse:
    status, code = next((found for kind, found in _STATUS.items() if isinstance(error, kind)), (422, "refused"))
    return _answer(status, code, str(error))


async def _validation(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 — that is what it is installed for
    return _answer(422, "invalid", "; ".join(_described(fault, request) for fault in error.errors()))


def _described(fault: Mapping[str, Any], request: Request) -> str:
    """Say which field is wrong, or what is wrong with the body as a whole."""
    where, *place = fault["loc"]
    if fault["type"] == "json_invalid":
        return f"the body is not JSON, at character {place[0]}: {fault['ctx']['error']}"
    if place:
        return f"{'.'.join(map(str, place))}: {fault['msg']}"
    content_type = request.headers.get("content-type", "")
    if where == "body" and fault["type"] != "missing" and "json" not in content_type:
        sent = f"as {content_type}" if content_type else "without a content type"
        return f"the body was sent {sent}; send JSON with the header `Content-Type: application/json`"
    return f"the {where}: {fault['msg']}"


async def _http(request: Request, error: Exception) -> JSONResponse:
    """What the routing refuses: no such path, or not with this method."""
    assert isinstance(error, HTTPException)  # noqa: S101 — that is what it is installed for
    path, allow = request.url.path, (error.headers or {}).get("Allow")
    if error.status_code == 404:
        return _answer(404, "not_found", f"there is no {path}; /docs lists what there is")
    message = f"{path} does not take {request.method}, only {allow}" if allow else str(error.detail)
    return _answer(error.status_code, "invalid", message, headers=error.headers)


def _answer(status: int, code: str, message: str, *, headers: Mapping[str, str] | None = None) -> JSONResponse:
    body = ErrorBody(error=ErrorView.model_validate({"code": code, "message": message}))
    return JSONResponse(body.model_dump(), status_code=status, headers=headers)
