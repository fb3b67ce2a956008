"""One run of both models on the same half of the benchmark.

Owns: fetching them, the compute lease, the order candidate, generator, judge, the progress shown, and whose fault a
failure is. Does not know: what is made of the answers, nor why this half is asked.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from jupiter import manifests
from jupiter.compute import Interrupted, Turns
from jupiter.errors import IntegrityError, NotFound, Rejected, Retry
from jupiter.evaluator.contestants import weights_sha256
from jupiter.evaluator.deps import WAIT_S, Deps
from jupiter.evaluator.examination import Examined, Paper, Unscored
from jupiter.evaluator.items import Half, PromptSetting
from jupiter.evaluator.judge import judge_total
from jupiter.evaluator.judging import judge_answers, questions_of
from jupiter.evaluator.match import Match
from jupiter.evaluator.progress import ProgressLine, ReportProgress
from jupiter.evaluator.results import Both
from jupiter.manifests import Committed
from jupiter.modeling import UnfitModel
from jupiter.reports import Judgement

__all__ = ["Contest", "hold"]

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Contest:
    """A match on one half, and with which prompts."""

    match: Match
    half: Half
    stage: str
    """What the status says meanwhile."""
    candidate_prompts: Mapping[str, PromptSetting] | None = None
    generator_prompts: Mapping[str, PromptSetting] | None = None
    """None, both: each model's own are tuned first."""
    general: bool = False

    def paper(self, prompts: Mapping[str, PromptSetting] | None) -> Paper:
        benchmark = self.match.frozen.benchmark
        return Paper(benchmark=benchmark, half=self.half, prompts=prompts, general=self.general)


async def hold(contest: Contest, deps: Deps, commit: Callable[[Both], Committed]) -> Committed:
    """Examine both models, let the judge compare, and return what `commit` (blocking) makes of it.

    Raises Rejected when the candidate is at fault, Retry when it may go better another time.
    """
    checkpoint, version = await asyncio.to_thread(_manifests_of, contest.match, deps)
    async with deps.examining:
        await deps.runtime.status("loading", detail=contest.match.detail)
        run = _Run(contest, deps, checkpoint, version, asyncio.get_running_loop())
        try:
            return await _in_thread(lambda interrupted: commit(run.both(interrupted)), stop=deps.runtime.stop)
        except Interrupted:
            raise Retry("the evaluator stops; another run begins it anew", counts=False) from None
        except Unscored as error:
            raise Retry(f"the evaluation of {contest.match.detail} is incomplete: {error}", delay_s=WAIT_S) from error


def _manifests_of(match: Match, deps: Deps) -> tuple[Committed, Committed]:
    """Return the manifests of candidate and generator as named. Raises Rejected when the candidate is gone."""
    blobs = deps.runtime.blobs
    with _CandidateTrouble(match):
        checkpoint = manifests.read(blobs, match.checkpoint_manifest_key, sha256=match.checkpoint_manifest_sha256)
    return checkpoint, manifests.read(blobs, match.generator.manifest_key, sha256=match.generator.manifest_sha256)


class _Run:
    """The part that computes, in a worker thread."""

    def __init__(
        self,
        contest: Contest,
        deps: Deps,
        checkpoint: Committed,
        version: Committed,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._contest, self._deps, self._loop = contest, deps, loop
        self._checkpoint, self._version = checkpoint, version

    def both(self, interrupted: threading.Event) -> Both:
        started, contest, judge = time.monotonic(), self._contest, self._deps.judge
        judgement = None
        with ExitStack() as stack:
            directories = self._fetched(stack)
            turns = stack.enter_context(Turns(self._deps.lease, purpose="evaluating", interrupted=interrupted))
            candidate, generator = self._examined(*directories, turns)
            if judge is not None and judge.computes_here:
                judgement = self._judged(candidate, generator, turns.between)
        if judge is not None and not judge.computes_here:
            # Others compute while the endpoint thinks.
            judgement = self._judged(candidate, generator, lambda: _unless(interrupted))
        return Both(
            half=contest.half,
            items=contest.match.frozen.benchmark.half(contest.half),
            candidate=candidate,
            generator=generator,
            candidate_weights_sha256=weights_sha256(self._checkpoint.manifest),
            generator_weights_sha256=weights_sha256(self._version.manifest),
            judgement=judgement,
            wall_s=time.monotonic() - started,
        )

    def _fetched(self, stack: ExitStack) -> tuple[Path, Path]:
        """Return the directories of candidate and generator, fetched before the lease is taken: others compute."""
        contestants, blobs = self._deps.contestants, self._deps.runtime.blobs
        generator = contestants.generator(blobs, self._version)
        with _CandidateTrouble(self._contest.match):
            return stack.enter_context(contestants.candidate(blobs, self._checkpoint)), generator

    def _examined(self, candidate: Path, generator: Path, turns: Turns) -> tuple[Examined, Examined]:
        """Examine the candidate, then the generator, whose troubles are not the checkpoint's and are tried again."""
        contest, examiner = self._contest, self._deps.examiner
        of_candidate, of_generator = contest.paper(contest.candidate_prompts), contest.paper(contest.generator_prompts)
        total = examiner.answers(of_candidate) + examiner.answers(of_generator)
        progress = ProgressLine(self._shown(contest.stage), total=total, between=turns.between)
        with _CandidateTrouble(contest.match):
            examined = examiner.examine(candidate, of_candidate, progress)
        return examined, examiner.examine(generator, of_generator, progress)

    def _judged(self, candidate: Examined, generator: Examined, between: Callable[[], None]) -> Judgement:
        judge = self._deps.judge
        assert judge is not None  # noqa: S101 — only asked for where there is one
        items = self._contest.match.frozen.benchmark.half(self._contest.half)
        total = judge_total(judge, len(questions_of(items)))
        return judge_answers(
            judge,
            items,
            candidate=candidate,
            generator=generator,
            checkpoint=self._checkpoint,
            version=self._version,
            progress=ProgressLine(self._shown("judging", unit="comparisons"), total=total, between=between),
        )

    def _shown(self, stage: str, *, unit: str = "items") -> ReportProgress:
        def show(*, done: int, total: int, rate_per_s: float | None) -> None:
            status = self._deps.runtime.status(
                stage, detail=self._contest.match.detail, done=done, total=total, unit=unit, rate_per_s=rate_per_s
            )
            asyncio.run_coroutine_threadsafe(status, self._loop)

        return show


class _CandidateTrouble:
    """Turns what is wrong with the candidate itself into a rejection: trying again cannot help."""

    def __init__(self, match: Match) -> None:
        self._what = match.candidate_name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, NotFound):
            raise Rejected(f"{self._what} is no longer stored, it was garbage-collected: {error}") from error
        if isinstance(error, IntegrityError):
            raise Rejected(f"{self._what} is corrupt in the store: {error}") from error
        if isinstance(error, UnfitModel):
            raise Rejected(f"{self._what} is no model that can be loaded: {error}") from error


def _unless(interrupted: threading.Event) -> None:
    if interrupted.is_set():
        raise Interrupted


async def _in_thread(work: Callable[[threading.Event], T], *, stop: asyncio.Event) -> T:
    """Run `work` in a thread, and let it know when the service stops or this task is cancelled."""
    interrupted = threading.Event()

    async def watch() -> None:
        await stop.wait()
        interrupted.set()

    watcher = asyncio.create_task(watch())
    try:
        return await asyncio.to_thread(work, interrupted)
    finally:
        interrupted.set()
        watcher.cancel()
