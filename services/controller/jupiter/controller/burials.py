"""Requests and batches that ended in the dead letters: given up, so that they hold nobody up.

Owns: reading the dead letters and voiding what was buried. Without it, a few poisonous requests would fill the
allowance of `metronome` for good. A letter that is replayed later and succeeds is counted as made all the same.
Does not know: why something was buried (the letter says so).
"""

from __future__ import annotations

from jupiter.bus import DeadLetter
from jupiter.bus.codec import decode
from jupiter.controller.deps import Deps
from jupiter.errors import Rejected
from jupiter.events import BatchGenerated, GenerationRequested, GenerationVoided

__all__ = ["Burials"]

LETTERS_MAX = 100
"""Read per look; more are read at the next."""


class Burials:
    """Looks at each dead letter once. After a restart it begins anew, and finds everything voided already."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._seen = 0

    async def give_up(self) -> None:
        """Void what was buried since the last look."""
        for letter in await self._deps.bus.dead_letters(after=self._seen, limit=LETTERS_MAX):
            voided = self._voided(letter)
            if voided is not None and voided.request_id not in self._deps.state.voided:
                await self._deps.bus.publish(voided)
                self._deps.state.apply(voided)
            self._seen = letter.sequence

    def _voided(self, letter: DeadLetter) -> GenerationVoided | None:
        try:
            event = decode(letter.data, letter.headers)
        except Rejected:
            return None  # not an event: a malformed document, say
        if event.domain != self._deps.state.domain or not isinstance(event, (GenerationRequested, BatchGenerated)):
            return None
        return GenerationVoided(
            domain=event.domain,
            request_id=event.request_id if isinstance(event, GenerationRequested) else event.batch_id,
            generator_version=event.generator_version,
            reason=f"dead letter {letter.sequence} of the {letter.service}: {letter.reason}"[:1_000],
        )
