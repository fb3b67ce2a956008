"""`SelfImprover`: promotion, rollback, status and history over the controller's API.

Owns: the calls, their retries and their errors. Does not know: how the controller decides.

A flip names the version that was live when it was asked for, and carries one Idempotency-Key over all its retries: it
happens once or not at all, whatever the network does.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import uuid
from collections.abc import Awaitable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from jupiter.config import ClusterConfig
from jupiter.config.loading import cluster_from, load_cluster
from jupiter.errors import ConfigError, Conflict, JupiterError, NotFound, Rejected, Unavailable
from jupiter.ledger import LedgerEntry, flips
from jupiter.local.endpoints import api_url
from jupiter.orchestrator.access import key_header
from jupiter.orchestrator.hooks import OnPromotion, OnRollback

__all__ = ["SelfImprover"]

log = logging.getLogger(__name__)

ATTEMPTS = 4
PAUSE_S = 0.5
TIMEOUT_S = 30.0
"""Of one attempt. A flip is a few small reads and writes in the object store."""
WATCH_INTERVAL_S = 5.0
"""Between two looks at the history. Rounds of training take minutes at least."""

_ERRORS: Mapping[str, type[JupiterError]] = {
    "unauthorized": Rejected,
    "forbidden": Rejected,
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
        """`config`: a ClusterConfig, a dict or YAML file of its settings, or the API's URL. Unless it is a URL, the
        system that runs in the configuration's `data_dir` is found as the commands find it, whatever port it got.

        `trainer`: None, or any object; its `on_promotion(version)` and `on_rollback(version)` are called after a flip
        made here, and while `watch()` runs after every flip (see `hooks`). `actor` stands in the ledger. `transport`
        and `pause_s` (before the second attempt; doubled before each further one): for tests.
        """
        self._target = _target(config)
        self._trainer = trainer
        self._actor = actor
        self._transport = transport
        self._pause_s = pause_s
        self._told: int | None = None
        """While watched: the ledger's entry up to which the trainer knows."""

    async def status(self) -> dict[str, Any]:
        """Return `/v1/status`: stages with progress and ETA, versions, what is waited for."""
        return dict(await self._call("GET", "/v1/status"))

    async def history(self, *, live_at: datetime | None = None) -> tuple[LedgerEntry, ...]:
        """Return every flip, oldest first; with `live_at` only the entry that was live then (or none)."""
        parameters = {"live_at": live_at.isoformat()} if live_at else {}
        answer = await self._call("GET", "/v1/history", params=parameters)
        entries = [answer["live"]] if live_at else answer["entries"]
        return flips([LedgerEntry.model_validate(entry) for entry in entries if entry is not None])

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
        return await self._flip("/v1/promote", {**target, "reason": reason})

    async def rollback_generator(
        self, version: int | None = None, *, reason: str = "rolled back by hand"
    ) -> LedgerEntry:
        """Make an earlier version the generator again; by default the one that the live one replaced.

        Raises NotFound when there is none, Conflict when another flip came first.
        """
        return await self._flip("/v1/rollback", {"version": version, "reason": reason})

    async def watch(self, *, interval_s: float = WATCH_INTERVAL_S) -> None:
        """Tell the trainer of every flip from now on, whoever made it, until cancelled: the gate's promotions as well.

        A controller that is away for a while is waited for; what happened meanwhile is told afterwards. Raises
        Conflict when this object is watching already, and whatever a hook raises.
        """
        if self._told is not None:
            raise Conflict("this SelfImprover is watching already; one `watch()` hears of every flip")
        self._told = max((entry.sequence for entry in await self.history()), default=0)
        try:
            while True:
                await asyncio.sleep(interval_s)
                try:
                    await self._tell_news()
                except Unavailable as error:
                    log.warning("%s; flips are told of once it answers", error)
        finally:
            self._told = None

    async def _tell_news(self) -> None:
        for entry in await self.history():
            if self._told is not None and entry.sequence > self._told:
                # First, so that a hook that flips does not hear of this one again.
                self._told = entry.sequence
                await self._tell(entry)

    async def _tell(self, entry: LedgerEntry) -> None:
        if entry.action == "promoted" and isinstance(self._trainer, OnPromotion):
            await _finished(self._trainer.on_promotion(entry.version))
        elif entry.action == "rolled_back" and isinstance(self._trainer, OnRollback):
            await _finished(self._trainer.on_rollback(entry.version))

    async def _flip(self, path: str, body: Mapping[str, Any]) -> LedgerEntry:
        entries = await self.history()
        if not entries:
            raise Conflict("no generator is registered yet: wait until the base model is imported")
        body = {**body, "actor": self._actor, "expected_version": entries[-1].version}
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        entry = LedgerEntry.model_validate(await self._call("POST", path, json=body, headers=headers))
        if self._told is None:
            await self._tell(entry)
        else:
            await self._tell_news()
        return entry

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

    @property
    def _url(self) -> str:
        """Looked up for every call: a system that was started again may listen elsewhere."""
        return self._target if isinstance(self._target, str) else api_url(self._target)

    def _client(self) -> httpx.AsyncClient:
        # A proxy in the environment is for the internet; the controller is on this machine or in its cluster.
        return httpx.AsyncClient(
            base_url=self._url, headers=key_header(), timeout=TIMEOUT_S, transport=self._transport, trust_env=False
        )


def _error_of(response: httpx.Response) -> JupiterError:
    try:
        body = response.json()["error"]
        return _ERRORS[body["code"]](body["message"])
    except (ValueError, KeyError, TypeError):
        kind = Unavailable if response.status_code >= 500 else Rejected
        return kind(f"{response.url} answered {response.status_code}: {response.text[:200]}")


def _target(config: ClusterConfig | Mapping[str, Any] | Path | str) -> ClusterConfig | str:
    """Return the API's address where one is given, else the configuration that says where it is. Raises ConfigError."""
    if isinstance(config, str) and config.startswith(("http://", "https://")):
        return config.rstrip("/")
    if isinstance(config, (str, Path)):
        if not Path(config).exists():
            raise ConfigError(f"{config} is neither an http:// address nor a configuration file that exists")
        return load_cluster([Path(config)])
    if isinstance(config, Mapping):
        return cluster_from(config, "the configuration given")
    if isinstance(config, ClusterConfig):
        return config
    raise ConfigError(
        f"{config!r} is no configuration: give a ClusterConfig, a dict, a YAML file or an http:// address"
    )


async def _finished(outcome: Awaitable[None] | None) -> None:
    if inspect.isawaitable(outcome):
        await outcome
