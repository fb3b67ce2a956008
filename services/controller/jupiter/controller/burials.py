"""Work that ended in the dead letters: given up, so that it holds nobody up.

Owns: reading the dead letters and voiding what was buried. Without it, a few poisonous requests would fill the
allowance of `metronome` for good, an evaluation would wait for its sealed half or its shadow batch for ever, and all
later ones behind it, and a checkpoint that could not be evaluated would never have a verdict and be kept for good. A
letter that is replayed later and succeeds is counted as made all the same: an evaluation then has a verdict of its own.
Does not know: why something was buried (the letter says so).
"""

from __future__ import annotations

import asyncio
import logging

from jupiter import crashpoints
from jupiter.bus import DeadLetter
from jupiter.bus.codec import decode
from jupiter.controller.deps import Deps
from jupiter.controller.evidence import Newer
from jupiter.controller.gate import Check, Verdict
from jupiter.controller.renewals import refusal_of
from jupiter.errors import Rejected
from jupiter.events import (
    BatchGenerated,
    BenchmarkRenewalRequested,
    CheckpointSaved,
    ConfirmationRequested,
    Event,
    GenerationRequested,
    GenerationVoided,
    ShadowGenerated,
    ShadowRequested,
)
from jupiter.ledger import current
from jupiter.records import digest_of

__all__ = ["Burials"]

log = logging.getLogger(__name__)

LETTERS_MAX = 100
"""Read per look; more are read at the next."""


class Burials:
    """Looks at each dead letter once. After a restart it begins anew, and finds everything voided already."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    async def give_up(self) -> None:
        """Void what was buried since the last look."""
        for letter in await self._deps.bus.dead_letters(after=self._deps.letters_seen, limit=LETTERS_MAX):
            event = self._buried(letter)
            reason = f"dead letter {letter.sequence} of the {letter.service}: {letter.reason}"
            if isinstance(event, (GenerationRequested, BatchGenerated)):
                await self._void(event, reason)
            elif isinstance(event, ConfirmationRequested):
                self._deps.given_up[event.evaluation_id, "confirmation"] = reason
            elif isinstance(event, (ShadowRequested, ShadowGenerated)):
                self._deps.given_up[event.evaluation_id, "shadow"] = reason
            elif isinstance(event, BenchmarkRenewalRequested):
                await self._deps.bus.publish(refusal_of(event, reason))
            elif isinstance(event, CheckpointSaved):
                await self._not_evaluated(event, letter, reason)
            self._deps.letters_seen = letter.sequence

    def _buried(self, letter: DeadLetter) -> Event | None:
        try:
            event = decode(letter.data, letter.headers)
        except Rejected:
            return None  # not an event: a malformed document, say
        return event if event.domain == self._deps.state.domain else None

    async def _void(self, event: GenerationRequested | BatchGenerated, reason: str) -> None:
        voided = GenerationVoided(
            domain=event.domain,
            request_id=event.request_id if isinstance(event, GenerationRequested) else event.batch_id,
            generator_version=event.generator_version,
            reason=reason[:1_000],
        )
        if voided.request_id not in self._deps.state.voided:
            await self._deps.bus.publish(voided)
            self._deps.state.apply(voided)

    async def _not_evaluated(self, event: CheckpointSaved, letter: DeadLetter, reason: str) -> None:
        """Tell that the checkpoint is INVALID: it was never scored, so there is nothing to decide on."""
        deps = self._deps
        evaluation_id = digest_of("not evaluated", event.checkpoint_id, letter.sequence)
        if evaluation_id in deps.state.verdicts:
            return
        live, frozen = current(await asyncio.to_thread(deps.ledger.refresh)), deps.state.benchmark
        fault = Check(name="evaluated", figure=reason, bound="scores of both models in the same run", outcome="invalid")
        verdict = Verdict(
            evaluation_id=evaluation_id,
            checkpoint_id=event.checkpoint_id,
            step=event.step,
            generator_version=live.version if live else 0,
            benchmark_digest=frozen.digest if frozen else "",
            decision="INVALID",
            checks=(fault,),
            difference=None,
            ledger_sequence=live.sequence if live else 0,
            look=0,
        )
        try:
            stands = await asyncio.to_thread(deps.evidence.store, verdict)
        except Newer:
            return  # the newer controller tells it
        told = await asyncio.to_thread(deps.evidence.announcement, stands)
        await deps.bus.publish(told)
        crashpoints.reached("event")
        deps.state.apply(told)
        log.error("step %d of %s is invalid: %s", event.step, event.run, reason)
