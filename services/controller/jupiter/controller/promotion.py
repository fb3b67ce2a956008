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
from datetime import UTC, datetime

from jupiter import crashpoints
from jupiter.controller import withdrawals
from jupiter.controller.deps import Deps
from jupiter.controller.evidence import Newer, Refusal
from jupiter.controller.flips import Request, announcement_of, flip_to_checkpoint
from jupiter.controller.gate import Verdict
from jupiter.controller.rollback import Rollback
from jupiter.errors import Conflict, IntegrityError, NotFound, Rejected
from jupiter.events import GeneratorPromoted, GeneratorRolledBack
from jupiter.ledger import LedgerEntry, current, flips

__all__ = ["Promotion", "wanted"]

log = logging.getLogger(__name__)

ACTOR = "controller"


async def wanted(deps: Deps) -> list[tuple[Verdict, str]]:
    """Return the PROMOTE verdicts (with their sha256) that may still be acted on, oldest first.

    One that was reached before the newest flip is no longer: it compared with, or was overtaken by, something else.
    Nor is one of a checkpoint that the trainer was sent back from: what was withdrawn is in its weights. Nor one that
    is no longer what its event told of, or not readable.
    """
    ledger = await asyncio.to_thread(deps.ledger.refresh)
    live, acted_on = current(ledger), {entry.evaluation_id for entry in flips(ledger)}
    found = []
    for evaluation_id, event in deps.state.verdicts.items():
        if event.decision != "PROMOTE" or evaluation_id in acted_on:
            continue
        try:
            stands = await asyncio.to_thread(deps.evidence.verdict, evaluation_id)
        except Newer:
            continue
        except Rejected as error:
            await _refuse(deps, evaluation_id, str(error))
            continue
        if stands is None or live is None or stands[0].ledger_sequence < live.sequence:
            continue
        if await asyncio.to_thread(deps.evidence.refusal, evaluation_id) is None and not await _refused(deps, *stands):
            found.append(stands)
    return found


async def _refused(deps: Deps, verdict: Verdict, digest: str) -> bool:
    """Refuse, for good, a verdict that was written over, and a candidate that a rollback took back; return whether."""
    told = deps.state.verdicts[verdict.evaluation_id].verdict_sha256
    checkpoint = deps.state.checkpoints.get(verdict.checkpoint_id)
    reason = None
    if told not in (None, digest):
        reason = f"somebody rewrote its verdict: it has sha256 {digest}, its event told of {told}"
    elif checkpoint is not None:
        reason = await withdrawals.fed_on_withdrawn(deps, checkpoint)
    if reason is None:
        return False
    await _refuse(deps, verdict.evaluation_id, reason)
    return True


async def _refuse(deps: Deps, evaluation_id: str, reason: str) -> None:
    """Refuse a promotion for good; the first reason stands."""
    if await asyncio.to_thread(deps.evidence.refusal, evaluation_id) is not None:
        return
    log.warning("promotion by evaluation %s refused: %s", evaluation_id[:12], reason)
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    await asyncio.to_thread(deps.evidence.refuse, Refusal(evaluation_id=evaluation_id, reason=reason, time=now))


class Promotion:
    """One step of the saga at a time; call `advance` whenever something may have changed."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._rollback = Rollback(deps)

    async def advance(self) -> None:
        """Announce what the ledger says, take back what failed, promote what was found better."""
        live = await self._announced()
        if live is None:
            return
        if await self._rollback.advance(live):
            await self._announced()
            return
        # An open diversity alarm pauses promotions; what was found better waits until it is cleared.
        if self._deps.config.self_improvement.mode == "auto" and self._deps.state.open_alarm() is None:
            for verdict, digest in (await wanted(self._deps))[:1]:
                await self._promote(verdict, digest)

    async def _announced(self) -> LedgerEntry | None:
        """Tell of every flip that the streams do not know of, and of what was withdrawn; return the live one."""
        deps = self._deps
        ledger = await asyncio.to_thread(deps.ledger.refresh)
        for entry in flips(ledger):
            if entry.sequence not in deps.state.flips:
                await self._announce(entry)
        await withdrawals.announce(deps)
        return current(ledger)

    async def _announce(self, entry: LedgerEntry) -> None:
        kind = GeneratorRolledBack if entry.action == "rolled_back" else GeneratorPromoted
        event = kind.model_validate(announcement_of(entry))
        await self._deps.bus.publish(event)
        crashpoints.reached("event")
        self._deps.state.apply(event)
        log.info("version %d is live (%s): %s", entry.version, entry.action, entry.reason)

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
            await _refuse(self._deps, verdict.evaluation_id, str(error))
        else:
            log.info("step %d became version %d", verdict.step, entry.version)
            await self._announced()
