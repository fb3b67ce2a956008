"""One run of training: everything that `training.train` does, one method per sentence.

Owns: the student, the run's progress, its checkpoints, and what is told about them.
Does not know: the order in which these things happen (`training`), nor how many processes compute (`crew`, `parallel`):
it lives in rank 0, which alone talks to the bus and the store.

Tensors are touched only in `_compute`'s one thread, so the event loop, with heartbeats and statuses, stays free.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import TypeVar

import torch

from jupiter import crashpoints, keys
from jupiter.compute import ComputeLease, Turn
from jupiter.errors import IntegrityError, NotFound, Unavailable
from jupiter.events import CheckpointSaved
from jupiter.manifests import Committed
from jupiter.modeling import UnfitModel
from jupiter.service import Runtime
from jupiter.trainer import checkpoints, resuming
from jupiter.trainer.checkpoints import RunState
from jupiter.trainer.config import recorded
from jupiter.trainer.crew import LeadingStudent
from jupiter.trainer.divergence import Diverged, LossGuard
from jupiter.trainer.formats import Encoder
from jupiter.trainer.metrics import Metrics
from jupiter.trainer.omissions import OmissionLog
from jupiter.trainer.outages import outlast
from jupiter.trainer.pace import Pace
from jupiter.trainer.parallel import World, join
from jupiter.trainer.progress import Progress
from jupiter.trainer.rewinding import Rewinds
from jupiter.trainer.shards import LoadedShard, ShardReader
from jupiter.trainer.starting_point import StartingPoint, find_starting_point

__all__ = ["Session"]

log = logging.getLogger(__name__)

T = TypeVar("T")

POLL_S = 1.0
"""Between two looks for generator version 1."""


class Session:
    """A run that is being trained. `resume_or_begin` comes first."""

    def __init__(self, runtime: Runtime, *, lease: ComputeLease, metrics: Metrics) -> None:
        self._runtime, self._lease, self._metrics = runtime, lease, metrics
        self._settings = runtime.config.trainer
        self._eval_every_steps = runtime.config.self_improvement.eval_every_steps
        self._config = recorded(self._settings, eval_every_steps=self._eval_every_steps)
        self._home = runtime.config.data_dir / "trainer"
        self._rewinds = Rewinds(runtime.bus, domain=runtime.domain, run=self._settings.run)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="training")
        self._world: World
        self._student: LeadingStudent
        self._pace = Pace()
        self._saved_step = 0
        self._snapshot_at = time.monotonic()

    async def resume_or_begin(self) -> None:
        """Take up the run where its newest whole state left it, or begin it from the starting model."""
        self._world = await self._compute(lambda: join(self._runtime.config))
        self._home.joinpath(self._settings.run).mkdir(parents=True, exist_ok=True)
        self._start = await self._starting_point()
        await self._rewinds.open()
        self._hearing = asyncio.create_task(self._rewinds.follow(), name="rewinds")
        await self._take_up()

    @property
    def rewind_due(self) -> bool:
        return self._rewinds.due

    async def rewind(self) -> None:
        """Go back to the checkpoint that was asked for, and train on from there under the name of another run."""
        await self._say("rewinding")
        await self.snapshot()  # if the checkpoint is gone, the run goes on from here
        await self._let_go_of_shards()
        await self._take_up()

    async def _take_up(self) -> None:
        """Make the run that is to be trained now the present one: student, progress, guard and place in the log."""
        self._rewinds.carried_out()
        await self._runtime.status("loading", detail=f"run {self._settings.run}")
        taken = await asyncio.to_thread(
            resuming.take_up,
            self._runtime.blobs,
            domain=self._runtime.domain,
            directory=self._home,
            start=self._start,
            config=self._config,
            rewinds=tuple(self._rewinds.requests),
        )
        state, self._directory, self._saved_step = taken.state, taken.directory, taken.saved_step
        _remove_leftovers(self._directory)
        async with self.turn():
            await self._compute(lambda: self._load_student(taken.tensors))
        self._guard = LossGuard(nats=self._settings.divergence_nats)
        if taken.tensors is not None:
            self._guard.restore(dict(state.guard))
        self._omissions = OmissionLog(
            bus=self._runtime.bus, blobs=self._runtime.blobs, domain=self._runtime.domain, run=state.run
        )
        await self._omissions.open()
        self._progress = Progress(state, self._settings)
        self._reader = self._shard_reader()
        self._progress.resume(await self._window())
        if taken.checkpoint:
            await self._publish_once(taken.checkpoint)
        self._shards = self._reader.follow(after=state.shard_sequence, without=lambda: self._progress.state.withdrawn)
        self._next_shard = asyncio.ensure_future(anext(self._shards))
        log.info("run %s %s at step %d, processes: %d", state.run, taken.how, state.step, self._world.size)

    def _load_student(self, tensors: dict[str, torch.Tensor] | None) -> None:
        """Load the starting model, then what it has become."""
        if hasattr(self, "_student"):
            del self._student  # two at once may be more than the machine holds
        self._student = LeadingStudent(self._start.directory, self._settings, world=self._world)
        if tensors is not None:
            self._student.restore(tensors)

    async def _window(self) -> list[LoadedShard]:
        """Return the shards of the present window, without what the present round leaves out."""
        state = self._progress.state
        return [await self._reader.load(shard, without=state.withdrawn) for shard in state.window]

    def turn(self) -> AbstractAsyncContextManager[Turn]:
        """Return a turn of the machine's compute lease."""
        return self._lease.turn("training")

    async def work_arrives(self) -> bool:
        """Wait for a step to take, a checkpoint to save or a rewind to carry out; False when told to stop."""
        stopping = asyncio.ensure_future(self._runtime.stop.wait())
        sent_back = asyncio.ensure_future(self._rewinds.news.wait())
        try:
            while not (self.rewind_due or self.checkpoint_due or await self.has_work() or stopping.done()):
                await self._say_waiting()
                await asyncio.wait([self._next_shard, stopping, sent_back], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            sent_back.cancel()
        return not self._runtime.stop.is_set()

    async def has_work(self) -> bool:
        """Say whether a step can be taken now. Takes up the next shard, if it is there, when the last round is done."""
        while self._progress.rows is None and self._next_shard.done() and not self.rewind_due:
            shard = self._next_shard.result()
            if self._progress.has_taken_up(shard.shard):
                log.info("shard %s is in the log again, at %d: passed over", shard.shard.shard_id, shard.shard.sequence)
            else:
                await self._begin_round(shard)
            self._next_shard = asyncio.ensure_future(anext(self._shards))
        return self._progress.rows is not None and not self.rewind_due and not self._runtime.stop.is_set()

    async def _begin_round(self, shard: LoadedShard) -> None:
        """Begin the round of a shard, without what was withdrawn until now."""
        omission = await self._omissions.at(shard.shard.sequence, known=self._progress.state.withdrawn)
        if omission is not None:
            self._progress.leave_out(omission)
            self._progress.reload(await self._window())
            shard = await self._reader.load(shard.shard, without=self._progress.state.withdrawn)
        self._progress.begin_round(shard)
        self._metrics.consumed(shard.counts, sequence=shard.shard.sequence)

    async def step(self) -> None:
        """Take one optimizer step. Raises Diverged."""
        rows, number = self._progress.rows, self._progress.state.step
        assert rows is not None, "has_work() was not asked"  # noqa: S101
        began = time.monotonic()
        outcome = await self._compute(lambda: self._student.step(rows, number=number))
        seconds = time.monotonic() - began
        self._metrics.stepped(outcome, step=number + 1, seconds=seconds)
        self._guard.check(step=number + 1, loss=outcome.loss, gradient_norm=outcome.gradient_norm)
        self._progress.stepped(outcome, self._guard.state())
        self._pace.stepped(tokens=outcome.tokens, seconds=seconds)
        await self._say_training(outcome.loss)

    @property
    def checkpoint_due(self) -> bool:
        """A run that is about to go back saves no more: nobody shall evaluate it."""
        step = self._progress.state.step
        return step % self._eval_every_steps == 0 and step > self._saved_step and not self.rewind_due

    async def checkpoint(self) -> None:
        """Write, upload and publish a checkpoint. Raises Diverged when what was trained is no model any more."""
        state = self._progress.state
        await self._say("saving")
        with tempfile.TemporaryDirectory(prefix="checkpoint-", dir=self._directory) as scratch:
            directory = Path(scratch)
            try:
                async with self.turn():
                    await self._compute(lambda: self._write(directory, state))
            except UnfitModel as error:
                raise Diverged(f"step {state.step} cannot be saved: {error}") from error
            try:
                await self._hand_over(directory, state)
            except IntegrityError as error:  # it was saved before, and its manifest is damaged
                log.error("checkpoint at step %d is left out: %s", state.step, error)  # noqa: TRY400
        self._saved_step = state.step
        self._progress.checkpointed()

    async def _hand_over(self, directory: Path, state: RunState) -> None:
        """Upload a checkpoint and publish it."""
        committed = await self._outlast(
            lambda: asyncio.to_thread(
                checkpoints.commit, self._runtime.blobs, directory, state, domain=self._runtime.domain
            )
        )
        await self._outlast(lambda: self._runtime.bus.publish(checkpoints.event_of(committed)))
        crashpoints.reached("event")
        self._metrics.checkpoints.inc()
        log.info("checkpoint at step %d, loss %.3f", state.step, state.loss)

    async def _outlast(self, work: Callable[[], Awaitable[T]]) -> T:
        """Wait for a server that is away: to end would end all ranks. What was trained is on this disk meanwhile."""
        try:
            return await work()
        except Unavailable:
            await self.snapshot()
            return await outlast(work, waiting="to save a checkpoint")

    @property
    def snapshot_due(self) -> bool:
        elapsed_s = time.monotonic() - self._snapshot_at
        return elapsed_s > self._settings.snapshot_interval_s and self._progress.state.step > self._saved_step

    async def snapshot(self) -> None:
        """Keep the state on this disk, so that a stop between two checkpoints costs nothing."""
        state = self._progress.state

        def write() -> None:
            resuming.write_snapshot(
                lambda directory: checkpoints.write_state(self._student, state, directory), self._directory
            )

        if state.step > self._saved_step:
            await self._compute(write)
        self._snapshot_at = time.monotonic()

    async def halt(self, reason: Diverged) -> None:
        """Say that training stopped for good, and wait to be told to end. The last good checkpoint stands."""
        self._metrics.diverged.set(1)
        log.error("training stopped: %s; the last good checkpoint is step %d", reason, self._saved_step)
        await self._say("diverged", detail=f"{reason}; the last good checkpoint is step {self._saved_step}")
        await self._runtime.stop.wait()

    async def close(self) -> None:
        """Let go of the log, the other processes and the thread."""
        if hasattr(self, "_hearing"):
            self._hearing.cancel()
            await asyncio.gather(self._hearing, return_exceptions=True)
        if hasattr(self, "_next_shard"):
            await self._let_go_of_shards()
        if hasattr(self, "_world"):
            self._thread.submit(self._world.leave)  # after the step in hand, which the others take part in
        self._thread.shutdown(wait=False)

    async def _let_go_of_shards(self) -> None:
        self._next_shard.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await self._next_shard
        await _close(self._shards)

    async def _starting_point(self) -> StartingPoint:
        """Wait until the model that the student starts from is there."""
        while True:
            try:
                return await asyncio.to_thread(
                    find_starting_point,
                    self._runtime.blobs,
                    domain=self._runtime.domain,
                    student=self._settings.student,
                    directory=self._home / self._settings.run,
                )
            except NotFound as error:
                await self._runtime.status("waiting", detail=str(error))
                await asyncio.sleep(POLL_S)

    def _shard_reader(self) -> ShardReader:
        encoder = Encoder(
            self._student.tokenizer,
            sample_format=self._settings.sample_format,
            sequence_length=self._settings.sequence_length,
            as_generated_share=self._settings.as_generated_share,
        )
        return ShardReader(
            bus=self._runtime.bus,
            blobs=self._runtime.blobs,
            domain=self._runtime.domain,
            encoder=encoder,
            settings=self._settings,
        )

    def _write(self, directory: Path, state: RunState) -> None:
        dtype = self._runtime.config.generator.dtype
        checkpoints.write_model(self._student, directory, source=self._start.directory, dtype=dtype)
        checkpoints.write_state(self._student, state, directory)

    async def _publish_once(self, committed: Committed) -> None:
        """Publish a checkpoint's event unless the log has it: a crash may have come between manifest and event."""
        event = checkpoints.event_of(committed)
        subject = keys.subject(CheckpointSaved.channel, self._runtime.domain)
        async for entry in self._runtime.bus.read(subject, follow=False):
            if entry.event.event_id == event.event_id:
                return
        await self._runtime.bus.publish(event)

    async def _compute(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def _say_training(self, loss: float) -> None:
        await self._say("training", loss=round(loss, 4))

    async def _say_waiting(self) -> None:
        await self._say("waiting", detail=f"for a shard after {self._progress.state.shard_sequence}")

    async def _say(self, stage: str, *, detail: str = "", **figures: float) -> None:
        """Publish a status: steps done of those up to the next evaluation."""
        state = self._progress.state
        await self._runtime.status(
            stage,
            detail=detail,
            done=state.step,
            total=(state.step // self._eval_every_steps + 1) * self._eval_every_steps,
            unit="steps",
            rate_per_s=self._pace.steps_per_s,
            shard_sequence=state.shard_sequence,
            step=state.step,
            tokens_seen=state.tokens_seen,
            tokens_per_s=self._pace.tokens_per_s,
            **figures,
        )


def _remove_leftovers(directory: Path) -> None:
    """Remove what a killed trainer was writing."""
    for pattern in ("checkpoint-*", "resume-*"):
        for path in directory.glob(pattern):
            shutil.rmtree(path, ignore_errors=True)


async def _close(shards: AsyncIterator[LoadedShard]) -> None:
    closing = getattr(shards, "aclose", None)
    if closing is not None:
        await closing()
