"""The student on all ranks: rank 0 says what is done next, and the others do the same with their parts.

Owns: the orders, the leading student, and the loop of a follower. Does not know: why anything is done (`session`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from jupiter.config.sections import TrainerSection
from jupiter.trainer.packing import Row
from jupiter.trainer.parallel import World
from jupiter.trainer.student import StepOutcome, Student

__all__ = ["LeadingStudent", "follow"]


@dataclass(frozen=True, kw_only=True)
class Load:
    directory: Path


@dataclass(frozen=True, kw_only=True)
class Restore:
    """The tensors come by way of the world."""


@dataclass(frozen=True, kw_only=True)
class Step:
    rows: Sequence[Row]
    number: int


@dataclass(frozen=True, kw_only=True)
class GatherState:
    pass


@dataclass(frozen=True, kw_only=True)
class GatherServedWeights:
    pass


class LeadingStudent(Student):
    """Rank 0's student: what it does, all do. In a world of one it is the student."""

    def __init__(self, directory: Path, settings: TrainerSection, *, world: World) -> None:
        world.tell(Load(directory=directory))
        super().__init__(directory, settings, world=world)

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self.world.tell(Restore())
        super().restore(tensors)

    def step(self, rows: Sequence[Row], *, number: int) -> StepOutcome:
        self.world.tell(Step(rows=rows, number=number))
        return super().step(rows, number=number)

    def state(self) -> dict[str, torch.Tensor]:
        self.world.tell(GatherState())
        return super().state()

    def served_weights(self) -> dict[str, torch.Tensor]:
        self.world.tell(GatherServedWeights())
        return super().served_weights()


def follow(world: World, settings: TrainerSection) -> None:
    """Do what rank 0 does until it leaves."""
    student: Student | None = None
    for order in world.orders():
        if isinstance(order, Load):
            student = None  # two at once may be more than the machine holds
            student = Student(order.directory, settings, world=world)
            continue
        assert student is not None, f"{order} came before a model"  # noqa: S101
        match order:
            case Restore():
                student.restore({})
            case Step():
                student.step(order.rows, number=order.number)
            case GatherState():
                student.state()
            case GatherServedWeights():
                student.served_weights()
