"""Many processes that train one model: FSDP2 over torch's process groups, gloo on CPUs and nccl on GPUs.

Owns: how parameters, rows and sums are divided among ranks, and how rank 0 talks to the others.
Does not know: what it says to them (`crew`), nor which model it is.

Every rank loads the starting model from files that are proven to be rank 0's, then keeps its part of each parameter.
What is saved is whole, gathered by torch's distributed checkpoint, so a world of another size reads it.

Two groups: the default one carries the model, and `_words` carries orders, over gloo even between GPUs, so that ranks
that wait for hours spin on no GPU. An idle leader says so every `BEAT_S`: a rank that hears nothing ends, and torchrun
starts all of them again from the last whole state.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.rendezvous import rendezvous
from torch.distributed.tensor import DTensor

from jupiter.errors import ConfigError
from jupiter.modeling import resolve_device
from jupiter.records import digest_of
from jupiter.trainer.blocks import blocks_of
from jupiter.trainer.meeting import meet
from jupiter.trainer.mirror import mirror
from jupiter.trainer.packing import Row, deal
from jupiter.trainer.parallel import trainable

__all__ = ["ManyProcesses"]

log = logging.getLogger(__name__)

SILENCE_S_MAX = 600.0
"""Longest wait for another rank; more than the longest step, load or gathering of a checkpoint."""
BEAT_S = 20.0
"""Between two words of a leader that has nothing to say."""

_BEAT = "beat"
_END = "end"
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class ManyProcesses:
    """One of the ranks. Tensors are touched by one thread, the one that calls its methods."""

    def __init__(self, *, device: torch.device, home: Path) -> None:
        """Use the process group that was initialised; `home` may be written to."""
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()
        self.device, self.loads_on = device, torch.device("cpu")
        self._home = home
        self._mesh = init_device_mesh(device.type, (self.size,))
        self._words: Any = distributed.new_group(backend="gloo", timeout=timedelta(seconds=SILENCE_S_MAX))
        self._speaking = threading.Lock()
        self._left = threading.Event()
        if self.rank == 0:
            threading.Thread(target=self._beat, name="beat", daemon=True).start()

    @classmethod
    def joined(cls, *, device: str, home: Path) -> ManyProcesses:
        """Meet the other processes that torchrun started. Raises ConfigError, Unavailable."""
        kind = torch.device(resolve_device(device)).type
        if kind not in ("cpu", "cuda"):
            raise ConfigError(f"trainer.device is {kind}: several processes train on cpu or cuda")
        place, backend = torch.device(kind), "gloo"
        if kind == "cuda":
            place, backend = torch.device(kind, int(os.environ["LOCAL_RANK"])), "cpu:gloo,cuda:nccl"
            torch.cuda.set_device(place)
        store, rank, size = next(rendezvous("env://", timeout=timedelta(seconds=SILENCE_S_MAX)))
        distributed.init_process_group(
            backend,
            store=meet(store, rank=rank, size=size, wait_s_max=SILENCE_S_MAX),
            rank=rank,
            world_size=size,
            timeout=timedelta(seconds=SILENCE_S_MAX),
        )
        return cls(device=place, home=home)

    def bring(self, directory: Path) -> Path:
        return mirror(directory, home=self._home, writes=int(os.environ["LOCAL_RANK"]) == 0)

    def spread(self, model: Any) -> Any:
        """Shard each block, then what is left: the parameters of one block at a time are whole."""
        for block in blocks_of(model):
            fully_shard(block, mesh=self._mesh)
        return fully_shard(model, mesh=self._mesh)

    def share(self, rows: Sequence[Row]) -> Sequence[Row]:
        return deal(rows, ranks=self.size)[self.rank]

    def begin_step(self, *, seed: int, number: int) -> None:
        """Draw anew from seed, step and rank: dropout then needs no state of any rank to be repeated."""
        torch.manual_seed(int(digest_of(seed, number, self.rank)[:15], 16))

    def total(self, value: float) -> float:
        summed = torch.tensor(value, dtype=torch.float64)
        distributed.all_reduce(summed)
        return float(summed)

    def whole(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor

    def gather(self, model: Any, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
        options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
        weights: Any = get_model_state_dict(model, options=options)
        moments: Any = get_optimizer_state_dict(model, optimizer, options=options)
        tensors: dict[str, torch.Tensor] = {}
        for name in self._led_names(model):
            tensors[f"weight.{name}"] = weights[name]
            tensors |= {f"{key}.{name}": value for key, value in moments["state"][name].items()}
        return tensors

    def scatter(self, tensors: Mapping[str, torch.Tensor], model: Any, optimizer: torch.optim.Optimizer) -> None:
        options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True, strict=False)
        names = self._led_names(model)
        weights: dict[str, Any] = {name: tensors[f"weight.{name}"] for name in names}
        set_model_state_dict(model, weights, options=options)
        groups = get_optimizer_state_dict(model, optimizer)["param_groups"]
        state: Any = {name: {key: tensors[f"{key}.{name}"] for key in _MOMENTS} for name in names}
        set_optimizer_state_dict(model, optimizer, {"state": state, "param_groups": groups}, options=options)

    def _led_names(self, model: Any) -> list[str]:
        """Return the names of the parameters that are saved; none on a follower, which holds nothing whole."""
        return [name for name, _ in trainable(model)] if self.rank == 0 else []

    def tell(self, order: Any) -> None:
        with self._speaking:
            distributed.broadcast_object_list([order], src=0, group=self._words)

    def orders(self) -> Iterator[Any]:
        while (order := self._heard()) != _END:
            if order != _BEAT:
                yield order
        self._part()

    def leave(self) -> None:
        self._left.set()
        self.tell(_END)
        self._part()

    def _heard(self) -> Any:
        heard: list[Any] = [None]
        distributed.broadcast_object_list(heard, src=0, group=self._words)
        return heard[0]

    def _beat(self) -> None:
        while not self._left.wait(BEAT_S):
            try:
                self.tell(_BEAT)
            except RuntimeError as error:
                log.warning("another rank is gone: %s", error)  # the next order fails, and ends this process
                return

    def _part(self) -> None:
        distributed.destroy_process_group()
