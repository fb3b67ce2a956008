"""The promotion saga: from a PROMOTE verdict to a generator that serves, or back.

The customer's six steps and where each lives:
1. save the checkpoint — done by the trainer; here only its presence is verified (`flips.verify_files`);
2. convert to the generator's format — the checkpoint has it already; its version manifest is created;
3. update the reference — the ledger entry is created: the flip;
4. the previous generator stays in the history — the entry names it, its files are kept (`collection`);
5. regenerate data — the flip is announced; generators void older requests, the metronome asks the new version;
6. go on training — nothing to do: the trainer reads the shards as they come.

Owns: the order, and finding out from durable facts alone (verdicts, ledger, streams) what is still to be done. Nothing
is remembered: a controller that dies between any two steps, or two controllers at once, end at the same ledger.
Does not know: HTTP, or the metronome.
"""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime

from jupiter import crashpoints
from jupiter.controller.deps import Deps
from jupiter.controller.evidence import Refusal
from jupiter.controller.flips import Request, announcement_of, flip_to_checkpoint, flip_to_version
from jupiter.controller.gate import Verdict
from jupiter.controller.watch import failure_of
from jupiter.errors import Conflict, IntegrityError, NotFound, Rejected
from jupiter.events import GeneratorPromoted, GeneratorRolledBack
from jupiter.ledger import LedgerEntry, current

__all__ = ["Promotion", "wanted"]

log = logging.getLogger(__name__)

ACTOR = "controller"


async def wanted(deps: Deps) -> list[tuple[Verdict, str]]:
    """Return the PROMOTE verdicts (with their sha256) that may still be acted on, oldest first.

    One that was reached before the newest flip is no longer: it compared with, or was overtaken by, something else.
    """
    ledger = await asyncio.to_thread(deps.ledger.refresh)
    found = []
    for evaluation_id, event in deps.state.verdicts.items():
        if event.decision != "PROMOTE":
            continue
        stands = await asyncio.to_thread(deps.evidence.verdict, evaluation_id)
        if stands is None or stands[0].ledger_sequence != len(ledger):
            continue
        if await asyncio.to_thread(deps.evidence.refusal, evaluation_id) is None:
            found.append(stands)
    return found


class Promotion:
    """One step of the saga at a time; call `advance` whenever something may have changed."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._watched_since: tuple[int, float] | None = None
        """(ledger sequence, monotonic time) since this process could have heard of loads."""

    async def advance(self) -> None:
        """Announce what the ledger says, roll back what nobody serves, promote what was found better."""
        ledger = await asyncio.to_thread(self._deps.ledger.refresh)
        for entry in ledger:
            if entry.sequence not in self._deps.state.flips:
                await self._announce(entry)
        live = current(ledger)
        if live is None:
            return
        if await self._roll_back_failure(live):
            return
        if self._deps.config.self_improvement.mode == "auto":
            for verdict, digest in (await wanted(self._deps))[:1]:
                await self._promote(verdict, digest)

    async def _announce(self, entry: LedgerEntry) -> None:
        kind = GeneratorRolledBack if entry.action == "rolled_back" else GeneratorPromoted
        event = kind.model_validate(announcement_of(entry))
        await self._deps.bus.publish(event)
        crashpoints.reached("event")
        self._deps.state.apply(event)
        log.info("version %d is live (%s): %s", entry.version, entry.action, entry.reason)

    async def _roll_back_failure(self, live: LedgerEntry) -> bool:
        if self._watched_since is None or self._watched_since[0] != live.sequence:
            self._watched_since = live.sequence, time.monotonic()
        reason = failure_of(
            self._deps.state,
            live,
            now=datetime.now(UTC),
            watched_s=time.monotonic() - self._watched_since[1],
            load_timeout_s=self._deps.config.controller.load_timeout_s,
        )
        if reason is None:
            return False
        request = Request(actor=ACTOR, reason=reason, action="rolled_back", expected_version=live.version)
        try:
            async with self._deps.flipping:
                entry = await asyncio.to_thread(
                    flip_to_version, self._deps.blobs, live.domain, request, version=live.previous_version
                )
        except Conflict as error:
            log.info("no rollback needed any more: %s", error)
            return True
        log.warning("rolled back to version %d: %s", entry.version, reason)
        await asyncio.to_thread(self._deps.ledger.refresh)
        await self._announce(entry)
        return True

    async def _promote(self, verdict: Verdict, digest: str) -> None:
        evaluation = self._deps.state.evaluations.get(verdict.evaluation_id)
        if evaluation is None:
            return  # the verdict's event came before the evaluation's; the next tick has both
        checkpoint = self._deps.state.checkpoints.get(evaluation.checkpoint_id)
        if checkpoint is None:
            return
        request = Request(
            actor=ACTOR,
            reason=f"step {verdict.step}: {verdict.difference:+.4f} against version {verdict.generator_version}, "
            f"lower bound {verdict.lower:+.4f}",
            action="promoted",
            expected_version=verdict.generator_version,
            evaluation_id=verdict.evaluation_id,
            evidence_sha256=digest,
        )
        try:
            async with self._deps.flipping:
                entry = await asyncio.to_thread(
                    flip_to_checkpoint,
                    self._deps.blobs,
                    evaluation.domain,
                    request,
                    checkpoint_id=checkpoint.checkpoint_id,
                    manifest_key=checkpoint.manifest_key,
                    manifest_sha256=checkpoint.manifest_sha256,
                )
        except Conflict as error:
            log.info("promotion of step %d overtaken: %s", verdict.step, error)
        except (Rejected, IntegrityError, NotFound) as error:
            log.error("promotion of step %d refused: %s", verdict.step, error)  # noqa: TRY400 — the message says it
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            refusal = Refusal(evaluation_id=verdict.evaluation_id, reason=str(error), time=now)
            await asyncio.to_thread(self._deps.evidence.refuse, refusal)
        else:
            await asyncio.to_thread(self._deps.ledger.refresh)
            await self._announce(entry)
