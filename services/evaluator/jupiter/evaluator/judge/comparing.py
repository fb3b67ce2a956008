"""What a judge is asked, what it may answer, and what every kind of judge must offer.

Owns: the question put to a judge and the interface of judges. Does not know: any kind of judge (`kinds`), whether one
may be believed (`probes`), what its verdicts are used for (`pairs`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

from jupiter.errors import JupiterError
from jupiter.evaluator.judge.parties import Party

__all__ = ["Comparison", "Failed", "Judge", "JudgeTrouble", "Progress", "Sitting", "Winner"]

Winner = Literal["first", "second", "tie"]
Progress = Callable[[int], None]
"""Called in the judging thread with the number of comparisons answered since the last call, and with 0 while it waits;
may block, to let others compute, or raise, to stop."""


class JudgeTrouble(JupiterError):
    """The judge cannot sit at all; the text says why. It is then unusable, and nothing is put in its place."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two answers to one question, in the order in which the judge sees them."""

    question: str
    first: str
    second: str
    passage: str = ""
    """The text that the question is about, where there is one."""

    def swapped(self) -> Comparison:
        """Return the same with the answers in the other order."""
        return Comparison(question=self.question, first=self.second, second=self.first, passage=self.passage)


@dataclass(frozen=True)
class Failed:
    """The judge gave no verdict that may be used: no answer in time, or none of the three allowed ones."""

    reason: str


class Sitting(Protocol):
    """A judge that is ready: connected, or its model loaded."""

    @property
    def identity(self) -> str:
        """Who really answered, as far as it is known by now: what stands in the report beside the judge's name."""
        ...

    def compare(self, comparisons: Sequence[Comparison], progress: Progress) -> list[Winner | Failed]:
        """Answer every comparison, in order. Blocks. Raises what `progress` raises."""
        ...


class Judge(Protocol):
    """A configured judge. Making one is cheap: nothing is connected or loaded before `sitting`."""

    @property
    def name(self) -> str:
        """Return which judge it is; it holds no secret."""
        ...

    @property
    def computes_here(self) -> bool:
        """Whether it needs this machine's compute lease while it sits."""
        ...

    @property
    def pairs_max(self) -> int:
        """Return how many pairs of answers it is given per evaluation."""
        ...

    def conflict(self, party: Party) -> str:
        """Return why it may not judge `party`, being that very model; empty when nothing says so."""
        ...

    def sitting(self) -> AbstractContextManager[Sitting]:
        """Connect or load, and release afterwards. Raises JudgeTrouble."""
        ...
