"""What a filter is.

Owns: `Verdict`, `Filter` and what a filter is given (`Context`). Does not know: any rule, nor who counts the reasons.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from jupiter.config.sections import CuratorSection
from jupiter.curator.candidate import Candidate
from jupiter.curator.corpus import Corpus
from jupiter.curator.history import History
from jupiter.overlap.forbidden import ForbiddenTexts

__all__ = ["KEPT", "CodeRunner", "Context", "Filter", "Verdict"]


@dataclass(frozen=True)
class Verdict:
    """Whether a sample goes on. `reason` is a counter's name (`short_response`), empty when kept.

    `score` is the figure that decided, for whoever reads the rejected samples; None where there is none.
    """

    kept: bool
    reason: str = ""
    score: float | None = None


KEPT = Verdict(kept=True)


class CodeRunner(Protocol):
    """Runs model-written code where it can do no harm. Returns None when the test passed, else the reason it did not.

    The reasons are counter names; `sandbox_unavailable` where nothing could be run: no sandbox, no pass.
    """

    def __call__(self, code: str, test: str) -> str | None: ...


@dataclass(frozen=True, kw_only=True)
class Context:
    """What the filters of one batch may look at. Nothing in it changes while the batch is judged."""

    settings: CuratorSection
    history: History
    corpus: Corpus
    forbidden: ForbiddenTexts
    run_code: CodeRunner
    batch: Sequence[Candidate]


class Filter(ABC):
    """One step. Built anew for each batch, so what it remembers is of this batch only; the rest is in `history`."""

    name: ClassVar[str]
    """The file's name: under it a rejected sample is filed."""
    order: ClassVar[int]
    """Lower judges earlier; the cheap ones come first. Leave gaps."""

    def __init__(self, context: Context) -> None:
        self.context = context

    @abstractmethod
    def judge(self, candidate: Candidate) -> Verdict:
        """Decide on one sample, without side effects."""

    def remember(self, candidate: Candidate) -> None:  # noqa: B027 - most filters remember nothing
        """Note a sample of this batch that every filter kept."""
