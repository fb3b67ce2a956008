"""What the checks of one verdict look at.

Owns: the figures that several checks need, each computed once and only if a check asks for it.
Does not know: any bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from jupiter.config.sections import SelfImprovementSection
from jupiter.controller.gate.verdict import History
from jupiter.ledger import LedgerEntry, current, opening_of, openings
from jupiter.reports import Confirmation, EvaluationReport, ItemResult, Judgement, seed_of
from jupiter.statistics import Bootstrapped, Flipped, Table, bootstrap, flip_signs, tabulate

__all__ = ["JUDGED", "Case"]

JUDGED = "judged"
"""Kind of the items whose scores a judge gave."""


@dataclass
class Case:
    """A report before the gate."""

    report: EvaluationReport
    history: History
    config: SelfImprovementSection

    @cached_property
    def seed(self) -> int:
        """Of every draw: nobody can draw again for a better one."""
        return seed_of(self.report.evaluation_id, self.report.benchmark_digest)

    @cached_property
    def live(self) -> LedgerEntry | None:
        return current(self.history.ledger)

    @cached_property
    def opening(self) -> LedgerEntry | None:
        """The opening of the sealed half that was spent on this evaluation."""
        return opening_of(self.history.ledger, self.report.evaluation_id)

    @cached_property
    def opening_number(self) -> int:
        """k: restarts, rollbacks and new benchmarks forget none of the openings before."""
        if self.opening and self.opening.opening:
            return self.opening.opening
        return 1 + len(openings(self.history.ledger, version=self.report.generator_version))

    @property
    def confirmation(self) -> Confirmation | None:
        return self.report.confirmation

    @cached_property
    def development(self) -> Table:
        return tabulate(self.report.items)

    @cached_property
    def development_flips(self) -> Flipped:
        return flip_signs(self.development, seed=self.seed)

    @cached_property
    def sealed(self) -> Table:
        """Of the opened half; only to be asked for when it was."""
        return tabulate(self.confirmation.items if self.confirmation else ())

    @cached_property
    def both_halves(self) -> Table:
        """All items there are: a bound on losses needs them, and prompts were chosen for both models alike."""
        return tabulate((*self._comparable(self.report.items), *self._comparable(self.sealed_items)))

    @property
    def sealed_items(self) -> tuple[ItemResult, ...]:
        return self.confirmation.items if self.confirmation else ()

    @property
    def judgements(self) -> tuple[Judgement | None, ...]:
        """What the judge said of each half that was scored."""
        return (self.report.judge, *((self.confirmation.judge,) if self.confirmation else ()))

    def _comparable(self, items: tuple[ItemResult, ...]) -> tuple[ItemResult, ...]:
        """A judge that could be believed on one half only would make coherence two different things."""
        if all(judgement and judgement.usable for judgement in self.judgements):
            return items
        return tuple(item for item in items if item.kind != JUDGED)

    @cached_property
    def both_halves_drawn(self) -> dict[str, Bootstrapped]:
        return dict(bootstrap(self.both_halves, seed=self.seed))
