"""Who may call the API: keys of which only the SHA-256 is known here, with a scope each.

Owns: reading `controller.api_keys`, and which scope a request needs. Does not know: what the routes do.

A key is 32 random bytes that `compose/make-secrets` draws, not a password a person chose: a plain SHA-256 is enough.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from jupiter.config.sections import ControllerSection
from jupiter.errors import ConfigError, JupiterError

__all__ = ["Caller", "Forbidden", "Unauthorized", "allowed", "check_reachable", "read_keys"]

log = logging.getLogger(__name__)

Scope = Literal["read", "operate", "admin"]
SCOPES: tuple[Scope, ...] = ("read", "operate", "admin")
"""Each may all that the ones before it may."""
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_SHA256 = re.compile("[0-9a-f]{64}")

_bearer = HTTPBearer(auto_error=False, description="A key of `controller.api_keys`, where there are any.")


class Unauthorized(JupiterError):
    """No key, or an unknown one."""


class Forbidden(JupiterError):
    """A key that may less than was asked for."""


@dataclass(frozen=True, kw_only=True)
class Caller:
    """One line of `controller.api_keys`."""

    name: str
    scope: Scope
    sha256: str


def read_keys(text: str) -> tuple[Caller, ...]:
    """Parse `controller.api_keys`. Raises ConfigError, which never repeats what stands there."""
    callers = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        parts = line.split()
        if len(parts) != 3 or parts[1] not in SCOPES or not _SHA256.fullmatch(parts[2]):
            raise ConfigError(
                f"controller.api_keys, line {number}: expected `name scope sha256` with a scope of "
                f"{', '.join(SCOPES)} and 64 hexadecimal digits"
            )
        callers.append(Caller(name=parts[0], scope=parts[1], sha256=parts[2]))
    return tuple(callers)


def check_reachable(section: ControllerSection) -> tuple[Caller, ...]:
    """Return the callers. Raises ConfigError where the whole network could promote without a key."""
    callers = read_keys(section.api_keys)
    if not callers and section.host not in LOOPBACK:
        raise ConfigError(
            f"controller.host {section.host} is reachable from other machines and controller.api_keys is empty: name "
            "a file with keys in JUPITER_CONTROLLER__API_KEYS_FILE (compose/make-secrets makes it), or listen on "
            "127.0.0.1"
        )
    return callers


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
    if scope != "read":
        log.info("api: %s %s by %s", request.method, request.url.path, caller.name, extra={"caller": caller.name})


def needed(method: str, path: str) -> Scope:
    """Return the scope of a request: to look, to steer, or to do what cannot be undone."""
    if method in ("GET", "HEAD"):
        return "read"
    return "admin" if method == "DELETE" or path.endswith("/forget") else "operate"
