"""From an evaluation to its settled verdict, in stages: screen, sealed half, shadow batch.

Each round every unsettled evaluation is put before the gate with what is known of it by now. What the gate still wants
is asked for, or, when it wants nothing more, inputs and verdict are stored and told.

Owns: what an evaluation needs next, found out from durable facts alone (streams, ledger, stored evidence). Nothing is
remembered but what a pure function answered: a controller that dies between any two steps, or two controllers at once,
spend one opening, ask once and settle once.
Does not know: the rules (`gate`), how a sealed half or a shadow batch is scored, what a verdict sets off (`promotion`).

One evaluation at a time is taken through the sealed half, so that a trainer faster than the evaluator does not spend
openings on candidates that are old before they are confirmed; of those that queue only the newest goes on.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from jupiter import crashpoints
from jupiter.controller.deps import Deps, Stage
from jupiter.controller.evidence import Inputs, Newer
from jupiter.controller.flips import open_sealed_half
from jupiter.controller.gate import Check, History, Verdict, decide
from jupiter.controller.withdrawals import fed_on_withdrawn
from jupiter.errors import Conflict, Rejected
from jupiter.events import ConfirmationRequested, EvaluationCompleted, ShadowRequested
from jupiter.ledger import LedgerEntry, current, opening_of
from jupiter.reports import EvaluationReport, Shadow, ShadowSide

__all__ = ["Verdicts"]

log = logging.getLogger(__name__)

ACTOR = "controller"


@dataclass(frozen=True)
class _Case:
    """An unsettled evaluation, and what is known of it by now."""

    event: EvaluationCompleted
    report: EvaluationReport
    """With what its training data hold of the benchmark; with confirmation and shadow, where they are there."""
    opening: LedgerEntry | None

    @property
    def evaluation_id(self) -> str:
        return self.event.evaluation_id


@dataclass(frozen=True)
class _Asked:
    """What the gate was asked about a case, and its answer."""

    case: _Case
    history: History
    verdict: Verdict


class Verdicts:
    """One round at a time; call `advance` whenever something may have changed."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._reports: dict[str, EvaluationReport] = {}
        """evaluation_id -> its report, which never changes, until it is settled."""
        self._answers: dict[str, _Asked] = {}
        """evaluation_id -> what the gate was asked last: the same question costs a bootstrap each time."""

    async def advance(self) -> None:
        """Settle what can be settled, and ask for what the others wait for."""
        deps, stages = self._deps, dict[str, Stage]()
        if current(await asyncio.to_thread(deps.ledger.refresh)) is None:
            return
        waiting: list[_Asked] = []
        for event in deps.state.unsettled():
            try:
                if not await self._resumed(event):
                    waiting += await self._judged(event, stages)
            except Newer as error:
                stages[event.evaluation_id] = Stage("deciding", str(error))
            except Rejected as error:
                await self._told(await asyncio.to_thread(deps.evidence.store, self._invalid(event, str(error))))
        await self._take_turns(waiting, stages)
        deps.stages = stages

    async def _take_turns(self, waiting: list[_Asked], stages: dict[str, Stage]) -> None:
        """Let what was opened go on; open the newest of the others when its turn has come."""
        opened = [asked for asked in waiting if asked.case.opening]
        queue = [asked for asked in waiting if not asked.case.opening]
        for asked in opened:
            stages[asked.case.evaluation_id] = await self._go_on(asked)
        for asked in queue[:-1]:
            newer = {"newer": queue[-1].case.evaluation_id}
            await self._settle(asked.case, asked.history.model_copy(update=newer))
        if queue and opened:
            detail = f"waits until evaluation {opened[0].case.evaluation_id[:10]} is settled"
            stages[queue[-1].case.evaluation_id] = Stage("queued", detail)
        elif queue:
            stages[queue[-1].case.evaluation_id] = await self._open(queue[-1])

    async def _resumed(self, event: EvaluationCompleted) -> bool:
        """Finish what a controller had begun to settle; return whether there was anything."""
        evidence = self._deps.evidence
        stands = await asyncio.to_thread(evidence.verdict, event.evaluation_id)
        if stands is not None:
            await self._told(stands[0])
            return True
        inputs = await asyncio.to_thread(evidence.inputs, event.evaluation_id)
        if inputs is not None:
            await self._told(await asyncio.to_thread(evidence.settle, inputs))
        return inputs is not None

    async def _judged(self, event: EvaluationCompleted, stages: dict[str, Stage]) -> list[_Asked]:
        """Return the gate's answer if it wants more; settle the evaluation if not. Raises Rejected."""
        case = await self._case(event)
        if case is None:
            stages[event.evaluation_id] = Stage("deciding", "the checkpoint's event is not read yet")
            return []
        asked = await self._ask(case)
        if asked.verdict.wants != "nothing":
            return [asked]
        await self._settle(case, asked.history)
        return []

    async def _case(self, event: EvaluationCompleted) -> _Case | None:
        """Put together what is known of an evaluation; None when its checkpoint was not heard of yet."""
        deps, state, evaluation_id = self._deps, self._deps.state, event.evaluation_id
        checkpoint = state.checkpoints.get(event.checkpoint_id)
        if checkpoint is None:
            return None
        if evaluation_id not in self._reports:
            report = await asyncio.to_thread(deps.evidence.report, event)
            deps.evidence.belongs(report, checkpoint)
            found = await asyncio.to_thread(
                deps.contaminations.of, checkpoint, benchmark_digest=report.benchmark_digest
            )
            self._reports[evaluation_id] = report.model_copy(update={"contamination": found})
        report, opening = self._reports[evaluation_id], opening_of(deps.ledger.entries, evaluation_id)
        confirmed = state.confirmations.get((evaluation_id, opening.opening or 0)) if opening else None
        if opening and confirmed and report.confirmation is None:
            confirmation = await asyncio.to_thread(deps.evidence.confirmation, confirmed, report, opening)
            report = report.model_copy(update={"confirmation": confirmation})
        if report.confirmation and report.shadow is None:
            report = report.model_copy(update={"shadow": await self._shadow(evaluation_id)})
        self._reports[evaluation_id] = report
        given_up = deps.given_up.get((evaluation_id, "shadow" if report.confirmation else "confirmation"))
        if given_up and report.shadow is None:
            raise Rejected(given_up)
        return _Case(event, report, opening)

    async def _shadow(self, evaluation_id: str) -> Shadow | None:
        """Return how the candidate did as a generator, if that was asked for and is known."""
        state = self._deps.state
        request, judged = state.shadow_requests.get(evaluation_id), state.shadows.get(evaluation_id)
        if request and judged:
            made = state.shadow_batches.get(evaluation_id)
            return await asyncio.to_thread(self._deps.evidence.shadow, judged, request, made)
        failure = state.shadow_failures.get(evaluation_id)
        return self._failed_shadow(request, failure.reason) if request and failure else None

    def _failed_shadow(self, request: ShadowRequested, reason: str) -> Shadow | None:
        """A candidate that could not generate made nothing of what was asked; the incumbent is then not judged."""
        state = self._deps.state
        issued, batch = state.requests.get(request.batch_id), state.batches.get(request.batch_id)
        if issued is None or batch is None:
            return None  # the streams are not read that far yet
        count = len(issued.document_ids)
        return Shadow(
            evaluation_id=request.evaluation_id,
            batch_id=request.batch_id,
            clusters=issued.document_ids,
            # There is no batch of the candidate's to name: its checkpoint stands for it.
            candidate=ShadowSide(
                manifest_sha256=request.checkpoint_manifest_sha256, items=count, samples=0, accepted=(False,) * count
            ),
            incumbent=ShadowSide(
                manifest_sha256=request.batch_manifest_sha256, items=count, samples=batch.samples, accepted=()
            ),
            failed=reason,
        )

    async def _history(self, event: EvaluationCompleted) -> History:
        deps = self._deps
        alarm = deps.state.open_alarm()
        history = await asyncio.to_thread(
            deps.evidence.history,
            deps.ledger.entries,
            tuple(deps.state.verdicts),
            alarms=alarm.alarms if alarm else (),
        )
        # Last, so by a ledger that is no older: a rollback that came in between makes the next round ask anew.
        withdrawn = await fed_on_withdrawn(deps, deps.state.checkpoints[event.checkpoint_id])
        return history.model_copy(update={"withdrawn": withdrawn})

    async def _ask(self, case: _Case) -> _Asked:
        history = await self._history(case.event)
        before = self._answers.get(case.evaluation_id)
        if before is None or (before.case.report, before.history) != (case.report, history):
            verdict = await asyncio.to_thread(decide, case.report, history, self._deps.config.self_improvement)
            before = _Asked(case, history, verdict)
        # The case of this round: its opening is newer than the answer.
        self._answers[case.evaluation_id] = asked = _Asked(case, history, before.verdict)
        return asked

    async def _go_on(self, asked: _Asked) -> Stage:
        """Ask for what an opened evaluation waits for."""
        opening = asked.case.opening
        assert opening is not None  # noqa: S101 — that is what opened means
        if asked.verdict.wants == "shadow":
            return await self._ask_for_shadow(asked.case)
        await self._ask_for_confirmation(asked.case, opening)
        return Stage("confirmation", f"the sealed half is scored (opening {opening.opening})")

    async def _open(self, asked: _Asked) -> Stage:
        """Spend an opening of the sealed half; when another controller was first, the next round asks anew."""
        deps, case = self._deps, asked.case
        try:
            async with deps.flipping:
                opening = await asyncio.to_thread(self._spend, asked)
        except Conflict as error:
            log.info("sealed half of evaluation %s not opened: %s", case.evaluation_id[:12], error)
            deps.following.changed.set()
            return Stage("deciding", "another controller went on with it, or the ledger changed")
        await asyncio.to_thread(deps.ledger.refresh)
        log.info("the sealed half was opened for step %d (opening %s)", case.report.step, opening.opening)
        await self._ask_for_confirmation(case, opening)
        return Stage("confirmation", f"the sealed half is scored (opening {opening.opening})")

    def _spend(self, asked: _Asked) -> LedgerEntry:
        """Raises Conflict when what was asked is of the past: the ledger grew, or another controller settles it."""
        deps, case = self._deps, asked.case
        if deps.evidence.has_begun(case.evaluation_id):
            raise Conflict("another controller settles it")
        return open_sealed_half(
            deps.blobs,
            deps.state.domain,
            evaluation_id=case.evaluation_id,
            benchmark_digest=case.report.benchmark_digest,
            actor=ACTOR,
            reason=f"step {case.report.step} passed the screen: {case.report.difference:+.4f} on the "
            f"development half against version {case.report.generator_version}",
            seen=len(asked.history.ledger),
        )

    async def _ask_for_confirmation(self, case: _Case, opening: LedgerEntry) -> None:
        state = self._deps.state
        if case.evaluation_id in state.confirmation_requests:
            return
        request = ConfirmationRequested(
            domain=state.domain,
            evaluation_id=case.evaluation_id,
            checkpoint_id=case.event.checkpoint_id,
            opening=opening.opening or 1,
            ledger_sequence=opening.sequence,
            report_manifest_key=case.event.manifest_key,
            report_manifest_sha256=case.event.manifest_sha256,
        )
        await self._deps.bus.publish(request)
        crashpoints.reached("event")
        state.apply(request)

    async def _ask_for_shadow(self, case: _Case) -> Stage:
        """Ask for the same items as the incumbent's newest batch; once asked, that batch stands."""
        state, report = self._deps.state, case.report
        if case.evaluation_id in state.shadow_batches:
            return Stage("shadow", "the curator judges the shadow batch")
        if case.evaluation_id in state.shadow_requests:
            return Stage("shadow", "a generator makes the shadow batch")
        batch = state.newest_batch(report.generator_version)
        if batch is None:
            return Stage("shadow", f"waits for a batch of version {report.generator_version} to repeat")
        checkpoint = state.checkpoints[case.event.checkpoint_id]
        request = ShadowRequested(
            domain=state.domain,
            evaluation_id=case.evaluation_id,
            checkpoint_id=checkpoint.checkpoint_id,
            checkpoint_manifest_key=checkpoint.manifest_key,
            checkpoint_manifest_sha256=checkpoint.manifest_sha256,
            generator_version=report.generator_version,
            batch_id=batch.batch_id,
            batch_manifest_key=batch.manifest_key,
            batch_manifest_sha256=batch.manifest_sha256,
        )
        # Not applied here: another controller may have named another batch first, and the stream's word counts.
        await self._deps.bus.publish(request)
        crashpoints.reached("event")
        return Stage("shadow", "a generator makes the shadow batch")

    async def _settle(self, case: _Case, history: History) -> None:
        """Store the verdict with what it follows from, and tell it.

        When the ledger grew meanwhile the next round asks anew: another controller may have opened the sealed half for
        it, and that must not be spent on what is settled as overtaken.
        """
        if len(await asyncio.to_thread(self._deps.ledger.refresh)) != len(history.ledger):
            self._deps.following.changed.set()
            return
        inputs = Inputs(report=case.report, history=history, config=self._deps.config.self_improvement)
        try:
            verdict = await asyncio.to_thread(self._deps.evidence.settle, inputs)
        except Newer:
            return  # a newer controller was first: from the next round on it is left to that one
        await self._told(verdict)

    async def _told(self, verdict: Verdict) -> None:
        event = await asyncio.to_thread(self._deps.evidence.announcement, verdict)
        await self._deps.bus.publish(event)
        crashpoints.reached("event")
        self._deps.state.apply(event)
        self._reports.pop(verdict.evaluation_id, None)
        self._answers.pop(verdict.evaluation_id, None)
        log.info("evaluation %s, step %d: %s", verdict.evaluation_id[:12], verdict.step, verdict.decision)

    def _invalid(self, event: EvaluationCompleted, reason: str) -> Verdict:
        """What it would rest on cannot be believed: there is nothing that the gate could decide on."""
        live = current(self._deps.ledger.entries)
        fault = Check(name="evidence", figure=reason, bound="evidence that is what its event names", outcome="invalid")
        log.error("evaluation %s is invalid: %s", event.evaluation_id[:12], reason)
        return Verdict(
            evaluation_id=event.evaluation_id,
            checkpoint_id=event.checkpoint_id,
            step=event.step,
            generator_version=event.generator_version,
            benchmark_digest=event.benchmark_digest,
            decision="INVALID",
            checks=(fault,),
            difference=event.difference,
            ledger_sequence=live.sequence if live else 0,
            look=0,
        )
