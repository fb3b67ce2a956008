"""`SelfImprover`: promotion, rollback, status and history over the controller's API.

Owns: the calls, their retries and their errors. Does not know: how the controller decides.

A flip names the version that was live when it was asked for, and carries one Idempotency-Key over all its retries: it
happens once or not at all, whatever the network does.
"""

from __future__ import annotations

import asyncio
import inspect
import uuid
from collections.abc import Awaitable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
from pydantic import ValidationError

from jupiter.config import ClusterConfig
from jupiter.config.loading import load_cluster
from jupiter.errors import ConfigError, Conflict, JupiterError, NotFound, Rejected, Unavailable
from jupiter.ledger import LedgerEntry
from jupiter.orchestrator.hooks import OnPromotion, OnRollback

__all__ = ["SelfImprover"]

ATTEMPTS = 4
PAUSE_S = 0.5
TIMEOUT_S = 30.0
"""Of one attempt. A flip is a few small reads and writes in the object store."""

_ERRORS: Mapping[str, type[JupiterError]] = {
    "not_found": NotFound,
    "conflict": Conflict,
    "refused": Rejected,
    "invalid": Rejected,
    "unavailable": Unavailable,
}


class SelfImprover:
    """Steers one running cycle."""

    def __init__(
        self,
        config: ClusterConfig | Mapping[str, Any] | Path | str,
        trainer: object | None = None,
        *,
        actor: str = "library",
        transport: httpx.AsyncBaseTransport | None = None,
        pause_s: float = PAUSE_S,
    ) -> None:
        """`config`: a ClusterConfig, a dict or YAML file of its settings, or the API's URL.

        `trainer`: None, or any object; its `on_promotion(version)` and `on_rollback(version)` are called after a flip
        (see `hooks`). `actor` stands in the ledger. `transport` and `pause_s`
        (before the second attempt; doubled before each further one): for tests.
        """
        self._url = _url(config)
        self._trainer = trainer
        self._actor = actor
        self._transport = transport
        self._pause_s = pause_s

    async def status(self) -> dict[str, Any]:
        """Return `/v1/status`: stages with progress and ETA, versions, what is waited for."""
        return dict(await self._call("GET", "/v1/status"))

    async def history(self, *, live_at: datetime | None = None) -> tuple[LedgerEntry, ...]:
        """Return every flip, oldest first; with `live_at` only the entry that was live then (or none)."""
        parameters = {"live_at": live_at.isoformat()} if live_at else {}
        answer = await self._call("GET", "/v1/history", params=parameters)
        entries = [answer["live"]] if live_at else answer["entries"]
        return tuple(LedgerEntry.model_validate(entry) for entry in entries if entry is not None)

    async def evaluations(self) -> list[dict[str, Any]]:
        """Return every evaluation with its verdict, oldest first."""
        return list(await self._call("GET", "/v1/evaluations"))

    async def promote(
        self,
        *,
        version: int | None = None,
        evaluation_id: str | None = None,
        checkpoint_id: str | None = None,
        reason: str = "promoted by hand",
        force: bool = False,
    ) -> LedgerEntry:
        """Make a known version, or a judged checkpoint, the generator.

        Raises Conflict when another flip came first, Rejected when the gate did not agree and `force` is False.
        """
        target = {"version": version, "evaluation_id": evaluation_id, "checkpoint_id": checkpoint_id, "force": force}
        entry = await self._flip("/v1/promote", {**target, "reason": reason})
        if isinstance(self._trainer, OnPromotion):
            await _finished(self._trainer.on_promotion(entry.version))
        return entry

    async def rollback_generator(
        self, version: int | None = None, *, reason: str = "rolled back by hand"
    ) -> LedgerEntry:
        """Make an earlier version the generator again; by default the one that the live one replaced.

        Raises NotFound when there is none, Conflict when another flip came first.
        """
        entry = await self._flip("/v1/rollback", {"version": version, "reason": reason})
        if isinstance(self._trainer, OnRollback):
            await _finished(self._trainer.on_rollback(entry.version))
        return entry

    async def _flip(self, path: str, body: Mapping[str, Any]) -> LedgerEntry:
        entries = await self.history()
        if not entries:
            raise Conflict("no generator is registered yet: wait until the base model is imported")
        body = {**body, "actor": self._actor, "expected_version": entries[-1].version}
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        return LedgerEntry.model_validate(await self._call("POST", path, json=body, headers=headers))

    async def _call(self, method: str, path: str, **request: Any) -> Any:
        """Repeat while the controller cannot be reached; raise what it answers. Every call here may be repeated."""
        pause_s = self._pause_s
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await self._call_once(method, path, **request)
            except Unavailable:
                if attempt == ATTEMPTS:
                    raise
                await asyncio.sleep(pause_s)
                pause_s *= 2
        raise AssertionError("the loop returns or raises")

    async def _call_once(self, method: str, path: str, **request: Any) -> Any:
        async with self._client() as client:
            try:
                response = await client.request(method, path, **request)
            except httpx.TransportError as error:
                raise Unavailable(
                    f"the controller does not answer at {self._url} ({error or type(error).__name__}); "
                    "is the cycle running? `jupiter up` starts it"
                ) from error
        if response.is_success:
            return response.json()
        raise _error_of(response)

    def _client(self) -> httpx.AsyncClient:
        # A proxy in the environment is for the internet; the controller is on this machine or in its cluster.
        return httpx.AsyncClient(base_url=self._url, timeout=TIMEOUT_S, transport=self._transport, trust_env=False)


def _error_of(response: httpx.Response) -> JupiterError:
    try:
        body = response.json()["error"]
        return _ERRORS[body["code"]](body["message"])
    except (ValueError, KeyError, TypeError):
        kind = Unavailable if response.status_code >= 500 else Rejected
        return kind(f"{response.url} answered {response.status_code}: {response.text[:200]}")


def _url(config: ClusterConfig | Mapping[str, Any] | Path | str) -> str:
    """Return the API's address. Raises ConfigError."""
    if isinstance(config, str) and config.startswith(("http://", "https://")):
        return config.rstrip("/")
    if isinstance(config, (str, Path)):
        if not Path(config).exists():
            raise ConfigError(f"{config} is neither an http:// address nor a configuration file that exists")
        config = load_cluster([Path(config)])
    elif isinstance(config, Mapping):
        try:
            config = ClusterConfig.model_validate(dict(config))
        except ValidationError as error:
            raise ConfigError(f"the configuration is not valid: {error}") from error
    # Listening everywhere is no address to connect to.
    host = "127.0.0.1" if config.controller.host in {"0.0.0.0", "::", ""} else config.controller.host  # noqa: S104
    return f"http://{f'[{host}]' if ':' in host else host}:{config.controller.port}"


async def _finished(outcome: Awaitable[None] | None) -> None:
    if inspect.isawaitable(outcome):
        await outcome
