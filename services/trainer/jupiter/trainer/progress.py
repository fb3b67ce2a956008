"""The state of a run as it advances: pure, so that a resumed run takes exactly the same course.

Owns: how a shard, a step and a checkpoint change `RunState`, and the plan of the current round.
Does not know: tensors, stores, time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from jupiter.config.sections import TrainerSection
from jupiter.trainer.checkpoints import RunState
from jupiter.trainer.packing import Row
from jupiter.trainer.rounds import ConsumedShard, RoundPlan, keep_window, laps_of, plan_round, shards_of_round
from jupiter.trainer.shards import LoadedShard
from jupiter.trainer.student import StepOutcome
from jupiter.withdrawals import Omission

__all__ = ["Progress"]


class Progress:
    """Where the run is, and what its next step trains on."""

    def __init__(self, state: RunState, settings: TrainerSection) -> None:
        self.state = state
        self._settings = settings
        self._loaded: dict[str, LoadedShard] = {}
        self._plan = RoundPlan(steps=())

    @property
    def rows(self) -> tuple[Row, ...] | None:
        """The next step's rows; None when the round is done and a new shard must come."""
        done = self.state.round_steps_done
        return self._plan.steps[done] if done < len(self._plan.steps) else None

    def resume(self, window: Sequence[LoadedShard]) -> None:
        """Plan the round that the state was saved in; `window` holds the shards of `state.window`."""
        self.reload(window)
        self._plan_round()

    def leave_out(self, omission: Omission) -> None:
        """Note what the next round and all later ones are trained without; `reload` follows."""
        self.state = self.state.model_copy(update={"omissions": (*self.state.omissions, omission)})

    def reload(self, window: Sequence[LoadedShard]) -> None:
        """Take the shards of `state.window` as they are now, for the rounds to come."""
        self._loaded = {loaded.shard.shard_id: loaded for loaded in window}

    def has_taken_up(self, shard: ConsumedShard) -> bool:
        """Whether the shard began a round before: the log may tell of a shard twice."""
        known = (*self.state.shards, *(one.shard_id for one in self.state.window))
        return shard.shard_id in known

    def begin_round(self, newest: LoadedShard) -> None:
        """Take up a new shard. One that is withdrawn begins its round like any other, and adds nothing to it."""
        settings, state = self._settings, self.state
        window = keep_window(
            (*state.window, newest.shard), passes=settings.passes_per_shard, spacing=settings.pass_spacing_shards
        )
        self._loaded[newest.shard.shard_id] = newest
        self._loaded = {shard.shard_id: self._loaded[shard.shard_id] for shard in window}
        self.state = state.model_copy(
            update={
                "window": window,
                "round_steps_done": 0,
                "shards": state.shards if newest.withdrawn else (*state.shards, newest.shard.shard_id),
                "counts": dict(Counter(state.counts) + Counter(newest.counts)),
            }
        )
        self._plan_round()

    def stepped(self, outcome: StepOutcome, guard: dict[str, object]) -> None:
        """Note that the step on `rows` was taken."""
        state = self.state
        self.state = state.model_copy(
            update={
                "step": state.step + 1,
                "tokens_seen": state.tokens_seen + outcome.tokens,
                "round_steps_done": state.round_steps_done + 1,
                "loss_sum": state.loss_sum + outcome.loss,
                "loss_steps": state.loss_steps + 1,
                "guard": guard,
            }
        )

    def checkpointed(self) -> None:
        """Begin a new mean of the loss."""
        self.state = self.state.checkpointed()

    def _plan_round(self) -> None:
        if not self.state.window:
            return
        settings = self._settings
        shards = shards_of_round(
            self.state.window, passes=settings.passes_per_shard, spacing=settings.pass_spacing_shards
        )
        self._plan = plan_round(
            laps_of(shards),
            {shard_id: loaded.samples for shard_id, loaded in self._loaded.items()},
            seed=settings.seed,
            tokens_per_step=settings.tokens_per_step,
            sequence_length=settings.sequence_length,
        )
