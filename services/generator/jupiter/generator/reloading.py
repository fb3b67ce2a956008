"""Hot reload (DESIGN §5): fetch beside, load, attest, switch; or say why not and go on serving.

Owns: following the ledger and the order of these steps. Does not know: engines' insides, requests.

The ledger is the truth; an event on `generators.<domain>` only says that it is worth reading. So a late joiner, a
missed event and a rollback all take the same way.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from jupiter import keys, ledger, manifests
from jupiter.compute import ComputeLease, Interrupted, Turns, compute
from jupiter.errors import JupiterError, Retry, Unavailable
from jupiter.events import Event, GeneratorLoaded, GeneratorLoadFailed
from jupiter.generator.engines import Engine
from jupiter.generator.serving import Served, Serving
from jupiter.generator.versions import Versions
from jupiter.ledger import LedgerEntry
from jupiter.manifests import Committed
from jupiter.modeling import AttestationError, NoRoom, UnfitModel
from jupiter.service import Runtime

__all__ = ["Reloader"]

log = logging.getLogger(__name__)

T = TypeVar("T")

LOAD_RETRY_S = 30.0
"""Pause before a version that is not loaded is tried again."""
STORE_PAUSE_S = 1.0
"""Pause before the store or the bus is asked again while it is down."""
REASON_CHARS_MAX = 2_000
BASE_VERSION = 1
MACHINE_FAULTS = (NoRoom, Retry, MemoryError, OSError)
"""Short memory, an engine that was killed, a full disk: they say nothing about the version that was being loaded."""


@dataclass(kw_only=True, repr=False)
class Reloader:
    """Makes the ledger's current version the one that serves here."""

    runtime: Runtime
    engine: Engine
    lease: ComputeLease
    serving: Serving
    versions: Versions
    retry_s: float = LOAD_RETRY_S
    _worth_a_look: asyncio.Event = field(default_factory=asyncio.Event)
    _adopted_sequence: int = 0
    _tried_sequence: int = 0
    """Of the entry that could not be adopted; `_again_at` says when it is tried again."""
    _again_at: float = 0.0

    def look(self) -> None:
        """Have the ledger read soon."""
        self._worth_a_look.set()

    def load_anew(self, served: Served, error: Exception) -> None:
        """Serve no more a version whose weights, as they lie here, are not the ones that were attested."""
        if served is self.serving.current:
            log.warning("version %d is loaded anew: %s", served.version, error)
            self.serving.withdraw()
            self._adopted_sequence = 0
            self.look()

    async def run(self) -> None:
        """Adopt what the ledger says, whenever it is worth a look, until the service stops."""
        tasks = [asyncio.create_task(self._follow_events()), asyncio.create_task(self._adopt_forever())]
        stopping = asyncio.create_task(self.runtime.stop.wait())
        try:
            done, _ = await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopping}:
                task.result()  # only an error ends one of them: let it end the service
        finally:
            for ending in (*tasks, stopping):
                ending.cancel()
            await asyncio.gather(*tasks, stopping, return_exceptions=True)

    async def _follow_events(self) -> None:
        """Look whenever a promotion or rollback is announced."""
        subject = keys.subject("generators", self.runtime.domain)
        after = await self._patiently(lambda: self.runtime.bus.last_sequence("generators"))
        self.look()  # only now: what is announced from here on is seen
        while True:
            try:
                async for announced in self.runtime.bus.read(subject, after=after):
                    after = announced.sequence
                    self.look()
            except Unavailable as error:
                log.warning("events wait: %s", error)
            await asyncio.sleep(STORE_PAUSE_S)

    async def _adopt_forever(self) -> None:
        pause_s: float | None = None
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._worth_a_look.wait(), pause_s)
            self._worth_a_look.clear()
            try:
                pause_s = await self._adopt_current()
            except JupiterError as error:  # a store that is away, or a ledger that is damaged: what serves goes on
                log.warning("reload waits: %s", error)
                pause_s = STORE_PAUSE_S

    async def _adopt_current(self) -> float | None:
        """Adopt the ledger's last word; return how long until that is worth another try, None when it is done.

        A request for a version that is not loaded asks for a look twice a second, an attempt may take a minute.
        """
        entry = ledger.current(await self.read_ledger())
        if entry is None:
            return None
        left_s = self._again_at - time.monotonic()
        if entry.sequence == self._tried_sequence and left_s > 0:
            return left_s
        if await self.adopt(entry):
            return None
        self._tried_sequence, self._again_at = entry.sequence, time.monotonic() + self.retry_s
        return self.retry_s

    async def read_ledger(self) -> tuple[LedgerEntry, ...]:
        return await asyncio.to_thread(ledger.read_ledger, self.runtime.blobs, self.runtime.domain)

    async def adopt(self, entry: LedgerEntry) -> bool:
        """Serve what `entry` names. Raises Unavailable.

        False when it cannot be served (and GeneratorLoadFailed), or cannot be yet. A fault of this machine is not the
        version's: where this is the only generator, one GeneratorLoadFailed takes the promotion back at once. How long
        such a fault may last the controller decides (`controller.load_timeout_s`).
        """
        if entry.sequence == self._adopted_sequence:
            return True
        started = time.monotonic()
        try:
            served = await self._in_memory(entry)
        except (Unavailable, Interrupted):
            raise
        except MACHINE_FAULTS as error:
            await self._put_off(entry, error)
            return False
        except Exception as error:  # noqa: BLE001 - whatever loading raises is that version's failure, not ours
            await self._failed(entry, f"{type(error).__name__}: {error}")
            return False
        released = self.serving.switch(served)
        self._adopted_sequence = entry.sequence
        seconds = round(time.monotonic() - started, 3)
        log.info("version %d serves, %.1f s after it was seen", entry.version, seconds)
        await self._tidy(entry, released)
        await self._publish(
            GeneratorLoaded(
                domain=self.runtime.domain,
                version=entry.version,
                ledger_sequence=entry.sequence,
                instance=self.runtime.instance,
                manifest_sha256=entry.manifest_sha256,
                seconds=seconds,
            )
        )
        await self.runtime.status("idle", detail=f"serving version {entry.version}", version=entry.version)
        return True

    async def _in_memory(self, entry: LedgerEntry) -> Served:
        """Return the version, loaded and attested; one kept for a rollback was attested when it was loaded."""
        kept = self.serving.find(entry.version, entry.manifest_sha256)
        if kept is not None and await self._active(kept):
            return kept
        try:
            return await self._loaded(entry)
        except (NoRoom, MemoryError) as error:
            if not await self._made_room():
                raise
            log.info("version %d is tried again in more memory: %s", entry.version, error)
            return await self._loaded(entry)

    async def _loaded(self, entry: LedgerEntry) -> Served:
        """Load what the ledger names; files that were damaged here since they came are fetched anew."""
        committed = await asyncio.to_thread(
            manifests.read, self.runtime.blobs, entry.manifest_key, sha256=entry.manifest_sha256
        )
        had = await asyncio.to_thread(self.versions.has, entry.version, committed)
        try:
            return await self._attested(entry, committed)
        except NoRoom:
            raise
        except (UnfitModel, AttestationError) as error:
            if not had:
                raise
            log.warning("version %d as it lay here is bad, it is fetched anew: %s", entry.version, error)
            await asyncio.to_thread(self.versions.discard, entry.version)
            return await self._attested(entry, committed)

    async def _attested(self, entry: LedgerEntry, committed: Committed) -> Served:
        """Fetch, load and attest."""
        about = f"version {entry.version}"
        await self.runtime.status("loading", detail=f"fetching {about}", **self._figures())
        directory = await asyncio.to_thread(self.versions.fetch, self.runtime.blobs, entry.version, committed)
        await self.runtime.status("loading", detail=f"loading and attesting {about}", **self._figures())
        tolerance = self.runtime.config.generator.attestation_tolerance

        def load_and_attest(turns: Turns) -> Served:
            handle = self.engine.load(directory)
            try:
                turns.between()
                self.engine.attest(handle, directory, tolerance=tolerance)
            except BaseException:
                self.engine.release(handle)
                raise
            return Served(version=entry.version, manifest_sha256=entry.manifest_sha256, handle=handle)

        return await compute(self.lease, "loading", load_and_attest)

    async def _active(self, kept: Served) -> bool:
        """Say whether a version that was kept for a rollback serves again; one that does not is loaded anew.

        It takes no turn of computing: a rollback must not wait for the machine to be free.
        """
        try:
            await asyncio.to_thread(self.engine.activate, kept.handle)
        except JupiterError as error:
            log.warning("version %d was kept but cannot serve, it is loaded anew: %s", kept.version, error)
            return False
        return True

    async def _made_room(self) -> bool:
        """Give up the version that is kept for a rollback; say whether that freed anything."""
        released = self.serving.forget_previous()
        for served in released:
            log.info("version %d is no longer kept: memory is short", served.version)
            await asyncio.to_thread(self.engine.release, served.handle)
        return bool(released)

    async def _put_off(self, entry: LedgerEntry, error: Exception) -> None:
        """Say what this machine lacks; the files stay, for they are good."""
        reason = f"version {entry.version} waits for this machine: {type(error).__name__}: {error}"
        log.warning("%s", reason)
        await self.runtime.status("waiting", detail=reason[:REASON_CHARS_MAX], **self._figures())

    async def _failed(self, entry: LedgerEntry, reason: str) -> None:
        """Report, and forget the files."""
        serving = self.serving.current
        log.error(
            "version %d is not served, %s goes on: %s",
            entry.version,
            f"version {serving.version}" if serving else "nothing",
            reason,
        )
        await asyncio.to_thread(self.versions.discard, entry.version)
        await self._publish(
            GeneratorLoadFailed(
                domain=self.runtime.domain,
                version=entry.version,
                ledger_sequence=entry.sequence,
                instance=self.runtime.instance,
                reason=reason[:REASON_CHARS_MAX],
            )
        )
        await self.runtime.status("idle", detail=f"version {entry.version} failed to load", **self._figures())

    async def _tidy(self, entry: LedgerEntry, released: list[Served]) -> None:
        """Everything that may follow the switch: the link, memory and disk."""
        keep = {BASE_VERSION, entry.version} | self.serving.versions()
        await asyncio.to_thread(self.versions.point_current, entry.version)
        for served in released:
            await asyncio.to_thread(self.engine.release, served.handle)
        versions_max = self.runtime.config.generator.local_versions_max
        await asyncio.to_thread(self.versions.prune, keep=keep, versions_max=versions_max)

    def _figures(self) -> dict[str, Any]:
        return {"version": self.serving.current.version} if self.serving.current else {}

    async def _publish(self, event: Event) -> None:
        await self._patiently(lambda: self.runtime.bus.publish(event))

    async def _patiently(self, action: Callable[[], Awaitable[T]]) -> T:
        """Repeat `action` until the bus is there."""
        while True:
            try:
                return await action()
            except Unavailable as error:
                log.warning("reload waits: %s", error)
                await asyncio.sleep(STORE_PAUSE_S)
