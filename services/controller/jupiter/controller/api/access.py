"""Who may call the API: keys of which only the SHA-256 is known here, with a scope each.

Owns: which scope a request needs, and who goes on record. Does not know: what the routes do, nor how
`controller.api_keys` is read (`jupiter.config.access`, which `jupiter check` asks too).

A key is 32 random bytes that `compose/make-secrets` draws, not a password a person chose: a plain SHA-256 is enough.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import Sequence
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from jupiter.config.access import SCOPES, Caller, Scope, check_reachable, read_keys
from jupiter.errors import JupiterError

__all__ = ["Caller", "Forbidden", "Unauthorized", "acting", "allowed", "check_reachable", "read_keys"]

log = logging.getLogger(__name__)

UNNAMED = "api"
"""Who acts where nobody is named."""
ACTOR_CHARS_MAX = 200

_bearer = HTTPBearer(auto_error=False, description="A key of `controller.api_keys`, where there are any.")


class Unauthorized(JupiterError):
    """No key, or an unknown one."""


class Forbidden(JupiterError):
    """A key that may less than was asked for."""


def allowed(request: Request, bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)] = None) -> None:
    """Let a request pass whose key has the scope. Raises Unauthorized, Forbidden. What changes something is logged."""
    callers: Sequence[Caller] = request.app.state.callers
    if not callers:
        return
    if bearer is None:
        raise Unauthorized("this API asks for a key: send `Authorization: Bearer <key>`, or set JUPITER_API_KEY")
    digest = hashlib.sha256(bearer.credentials.encode()).hexdigest()
    caller = next((one for one in callers if hmac.compare_digest(one.sha256, digest)), None)
    if caller is None:
        raise Unauthorized("this API does not know the key that was sent; controller.api_keys lists those it knows")
    scope = needed(request.method, request.url.path)
    if SCOPES.index(caller.scope) < SCOPES.index(scope):
        raise Forbidden(
            f"{request.method} {request.url.path} needs scope {scope}; the key {caller.name!r} has {caller.scope}"
        )
    request.state.caller = caller.name
    if scope != "read":
        log.info("api: %s %s by %s", request.method, request.url.path, caller.name, extra={"caller": caller.name})


def acting(request: Request, named: str) -> str:
    """Return who goes on record: with keys it is the key's name, whomever the caller says that it acts for."""
    caller: str | None = getattr(request.state, "caller", None)
    if caller is None or named in (caller, UNNAMED):
        return caller or named
    return f"{caller} (for {named})"[:ACTOR_CHARS_MAX]


def needed(method: str, path: str) -> Scope:
    """Return the scope of a request: to look, to steer, or to do what cannot be undone."""
    if method in ("GET", "HEAD"):
        return "read"
    return "admin" if method == "DELETE" or path.endswith("/forget") else "operate"
