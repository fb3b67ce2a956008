"""How a command finds its configuration and the system that runs.

Owns: reading the configuration once, and the HTTP client of the controller's API with errors that a user understands.
Does not know: what a command wants.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

from jupiter.cli import Settings
from jupiter.config import ClusterConfig
from jupiter.errors import Conflict, JupiterError, NotFound, Unavailable
from jupiter.local.endpoints import api_url
from jupiter.orchestrator.access import key_header

__all__ = ["Api", "configuration"]

# A promotion verifies checkpoint files of some hundred MB before it answers.
API_TIMEOUT_S = 120.0
CONNECT_TIMEOUT_S = 5.0


def configuration(settings: Settings) -> ClusterConfig:
    """Return the validated configuration. Raises ConfigError."""
    from jupiter.config.loading import assigned, load_cluster

    return load_cluster(settings.overlays, overrides=assigned(settings.assignments))


class Api:
    """The controller's API. Every failure is a JupiterError with one clear line."""

    def __init__(self, settings: Settings, url: str | None) -> None:
        self.url = (url or api_url(configuration(settings))).rstrip("/")
        timeout = httpx.Timeout(API_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        self._client = httpx.Client(base_url=f"{self.url}/v1", headers=key_header(), timeout=timeout, trust_env=False)

    def __enter__(self) -> Api:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, path: str, **query: Any) -> Any:
        """Return the JSON at `path`. Raises NotFound, Unavailable, JupiterError."""
        wanted = {key: value for key, value in query.items() if value is not None}
        return self._answer("GET", path, params=wanted)

    def post(self, path: str, body: Any, *, headers: Mapping[str, str] | None = None) -> Any:
        """Send `body` as JSON and return the answer's. Raises Conflict, NotFound, Unavailable, JupiterError."""
        return self._answer("POST", path, json=body, headers=dict(headers or {}))

    def delete(self, path: str) -> None:
        """Remove what is at `path`. Raises NotFound, Unavailable, JupiterError."""
        self._answer("DELETE", path)

    def _answer(self, method: str, path: str, **arguments: Any) -> Any:
        try:
            response = self._client.request(method, path, **arguments)
        except httpx.ConnectError:
            raise Unavailable(
                f"nothing answers at {self.url}; start it with `jupiter up`, or name another address with --api"
            ) from None
        except httpx.InvalidURL as error:
            raise JupiterError(f"{self.url!r} is not an address: {error}") from None
        except httpx.HTTPError as error:
            raise Unavailable(f"{self.url} did not answer: {error or type(error).__name__}") from None
        if response.is_success:
            return response.json() if response.content else None
        kinds: Mapping[int, type[JupiterError]] = {404: NotFound, 409: Conflict, 503: Unavailable}
        raise kinds.get(response.status_code, JupiterError)(_reason(response))


def _reason(response: httpx.Response) -> str:
    """Return what the API says went wrong, as one line."""
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"{response.request.url} answered {response.status_code}"
