"""The seam for many processes: what the trainer asks of them, and the answer when there is one.

Owns: `World`, `OneProcess`, and finding out which of the two this is. Does not know: FSDP2 (`ranks`).

`torchrun` starts the same command in every process and says in the environment which of how many each one is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from jupiter.config import ClusterConfig
from jupiter.modeling import resolve_device
from jupiter.trainer.packing import Row

__all__ = ["OneProcess", "World", "join", "trainable"]


class World(Protocol):
    """The processes that train one model together. All of them call each method but `tell`, `orders` and `leave`."""

    rank: int
    """Of this process; rank 0 leads."""
    size: int
    device: torch.device
    loads_on: torch.device
    """Where a model is loaded before `spread`."""

    def bring(self, directory: Path) -> Path:
        """Return a directory on this machine with the files that rank 0 has in `directory`."""
        ...

    def spread(self, model: Any) -> Any:
        """Return the model, its parameters divided among the processes."""
        ...

    def share(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Return the rows that this process computes: equally many in each."""
        ...

    def begin_step(self, *, seed: int, number: int) -> None:
        """Take note that a step begins."""
        ...

    def total(self, value: float) -> float:
        """Return the sum of `value` over all processes."""
        ...

    def whole(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return all of a tensor of which each process holds a part."""
        ...

    def gather(self, model: Any, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
        """Return trainable weights and optimizer state by name, whole; followers may get nothing."""
        ...

    def scatter(self, tensors: Mapping[str, torch.Tensor], model: Any, optimizer: torch.optim.Optimizer) -> None:
        """Take over what `gather` returned, in a world of any size; followers need not hold it."""
        ...

    def tell(self, order: Any) -> None:
        """Let the followers do what rank 0 is about to do."""
        ...

    def orders(self) -> Iterator[Any]:
        """Yield what rank 0 tells, in order, until it leaves."""
        ...

    def leave(self) -> None:
        """End the world: followers see the end of their orders."""
        ...


class OneProcess:
    """No others."""

    rank = 0
    size = 1

    def __init__(self, device: str = "auto") -> None:
        self.device = self.loads_on = torch.device(resolve_device(device))

    def bring(self, directory: Path) -> Path:
        return directory

    def spread(self, model: Any) -> Any:
        return model

    def share(self, rows: Sequence[Row]) -> Sequence[Row]:
        return rows

    def begin_step(self, *, seed: int, number: int) -> None:
        """The random state goes on from step to step, and is part of the student's state."""

    def total(self, value: float) -> float:
        return value

    def whole(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor

    def gather(self, model: Any, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
        tensors = {f"weight.{name}": parameter.detach() for name, parameter in trainable(model)}
        for name, parameter in trainable(model):
            for key, value in optimizer.state[parameter].items():
                tensors[f"{key}.{name}"] = value
        return tensors

    def scatter(self, tensors: Mapping[str, torch.Tensor], model: Any, optimizer: torch.optim.Optimizer) -> None:
        """Bit for bit, and in the memory that the model already owns.

        Its alignment, which some matrix libraries' rounding depends on, stays the allocator's.
        """
        with torch.no_grad():
            for name, parameter in trainable(model):
                parameter.copy_(tensors[f"weight.{name}"])
                optimizer.state[parameter] = {
                    key: tensors[f"{key}.{name}"].clone().to(self.device)
                    for key in ("step", "exp_avg", "exp_avg_sq")
                    if f"{key}.{name}" in tensors
                }

    def tell(self, order: Any) -> None:
        """Nobody listens."""

    def orders(self) -> Iterator[Any]:
        return iter(())

    def leave(self) -> None:
        """Nothing was joined."""


def trainable(model: Any) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """Yield each parameter that learns once, tied ones under one name."""
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def join(config: ClusterConfig) -> World:
    """Return the world that this process was started in; waits for the others. Raises ConfigError."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return OneProcess(config.trainer.device)
    from jupiter.trainer.ranks import ManyProcesses

    return ManyProcesses.joined(device=config.trainer.device, home=config.data_dir / "trainer")
