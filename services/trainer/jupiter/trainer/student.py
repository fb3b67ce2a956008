"""The model that learns: forward, backward, optimizer.

Owns: the tensors (master weights, AdamW moments, random state) and one optimizer step over rows of tokens.
Does not know: where rows come from, how many there will be, where its state is kept, nor who else computes.

Master weights are float32; under `precision: bfloat16` the matrix products run in bfloat16 (autocast).
Logits are computed only where there is a loss: with a vocabulary of 49,152 they are a fifth of all work.
"""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from jupiter.config.sections import TrainerSection
from jupiter.modeling import load_model
from jupiter.trainer.adapters import add_adapter, plain_weights
from jupiter.trainer.attention import PER_SAMPLE, probe_row
from jupiter.trainer.averaging import starting_weights, towards
from jupiter.trainer.blocks import blocks_of
from jupiter.trainer.packing import Row
from jupiter.trainer.parallel import OneProcess, World, trainable

__all__ = ["StepOutcome", "Student"]

log = logging.getLogger(__name__)

ADAM_BETAS = (0.9, 0.95)
"""The second moment forgets faster than PyTorch's default: runs here are hundreds of steps, not a million."""


@dataclass(frozen=True, kw_only=True)
class StepOutcome:
    """What one optimizer step did. A step whose loss or gradient is not finite changed no weight."""

    loss: float
    """Mean over the learned tokens, in nats."""
    tokens: int
    learned_tokens: int
    gradient_norm: float
    """Before clipping."""
    learning_rate: float

    @property
    def finite(self) -> bool:
        return math.isfinite(self.loss) and math.isfinite(self.gradient_norm)


class Student:
    """A causal language model and its optimizer."""

    def __init__(self, directory: Path, settings: TrainerSection, *, world: World | None = None) -> None:
        """Load the model in `directory` (Hugging Face layout, safetensors). Raises UnfitModel."""
        self.settings = settings
        self.world = world or OneProcess(settings.device)
        self.device = self.world.device
        self._start = self.world.bring(directory)
        model, self.tokenizer = load_model(
            self._start, dtype="float32", device=str(self.world.loads_on), inference=False
        )
        self.model = model
        self._picks_logits = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._per_sample = False
        if self.device.type == "cpu":
            self._choose_attention()
        model.train()
        if settings.activation_checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model = add_adapter(model, settings)
        if settings.compile and self.device.type != "cpu":
            for block in blocks_of(model):
                block.compile(dynamic=True)
        self.model = self.world.spread(model)
        self.optimizer = _adamw(self.model, settings, device=self.device)
        torch.manual_seed(settings.seed)  # dropout draws from it, where the model has any

    def step(self, rows: Sequence[Row], *, number: int) -> StepOutcome:
        """Take optimizer step `number` (0 is the run's first) on the mean loss over all learned tokens of `rows`."""
        learning_rate = self._set_learning_rate(number)
        self.world.begin_step(seed=self.settings.seed, number=number)
        learned = sum(len(row.targets) for row in rows)
        summed = 0.0
        for row in self.world.share(rows):
            loss = self.row_loss(row)
            # Gradients are averaged over the world; this makes them the sum over its rows.
            torch.autograd.backward(loss * self.world.size / learned)
            summed += loss.item()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.gradient_clip)
        outcome = StepOutcome(
            loss=self.world.total(summed) / learned,
            tokens=sum(len(row.tokens) for row in rows),
            learned_tokens=learned,
            gradient_norm=float(self.world.whole(norm)),
            learning_rate=learning_rate,
        )
        if outcome.finite:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return outcome

    def row_loss(self, row: Row) -> torch.Tensor:
        """Return the summed loss (nats) of the learned tokens of one row."""
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.settings.precision == "bfloat16"):
            logits = self._logits(row)
        targets = torch.tensor(row.targets, dtype=torch.long, device=self.device)
        return functional.cross_entropy(logits.float(), targets, reduction="sum")

    def _logits(self, row: Row) -> torch.Tensor:
        """Return the logits at `row.loss_at`."""
        keep = torch.tensor(row.loss_at, dtype=torch.long, device=self.device)
        options: dict[str, Any] = {"logits_to_keep": keep} if self._picks_logits else {}
        if self._per_sample:
            options["sample_lengths"] = row.lengths
        logits: torch.Tensor = self.model(
            input_ids=torch.tensor([row.tokens], device=self.device),
            position_ids=torch.tensor([row.positions], device=self.device),
            use_cache=False,
            **options,
        ).logits[0]
        return logits if self._picks_logits else logits[keep]

    def state(self) -> dict[str, torch.Tensor]:
        """Return every tensor that the next step depends on, by name: what `restore` takes."""
        tensors = self.world.gather(self.model, self.optimizer)
        tensors["random.cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(self.device)
        return tensors

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take over the tensors of `state`; those of a world of another size will do.

        The next step is then the one that would have followed: bit for bit, if the world has the same size.
        """
        self.world.scatter(tensors, self.model, self.optimizer)
        if "random.cpu" in tensors:
            torch.set_rng_state(tensors["random.cpu"])
        if self.device.type == "cuda" and "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"], self.device)

    def served_weights(self) -> dict[str, torch.Tensor]:
        """Return the weights as a generator serves them: bfloat16, tied ones still one tensor, adapters merged in.

        Where `served_share` is below 1 they lie between the starting model's and the student's. Followers get none.
        """
        averaged = self.settings.served_share < 1 and self.world.rank == 0
        start = starting_weights(self._start) if averaged else {}
        cast: dict[int, torch.Tensor] = {}
        weights = {}
        with torch.no_grad():
            for name, tensor in plain_weights(self.model):
                if id(tensor) not in cast or not isinstance(tensor, torch.nn.Parameter):
                    cast[id(tensor)] = self._served(tensor, start[name] if averaged else None)
                if self.world.rank == 0:
                    weights[name] = cast[id(tensor)]
        return weights

    def _served(self, tensor: torch.Tensor, start: torch.Tensor | None) -> torch.Tensor:
        whole = self.world.whole(tensor)
        if self.world.rank > 0:
            return whole.new_empty(0)
        if start is not None:
            whole = towards(start, whole, share=self.settings.served_share)
        return whole.to("cpu", torch.bfloat16) if whole.is_floating_point() else whole

    def _set_learning_rate(self, number: int) -> float:
        """Warm up linearly, then hold: there is no horizon to decay towards."""
        warmup = min(1.0, (number + 1) / max(1, self.settings.warmup_steps))
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * warmup
        return self.settings.learning_rate * warmup

    def attend(self, implementation: str) -> None:
        """Use another attention: `attention.PER_SAMPLE`, or any that transformers has for this model."""
        self.model.set_attn_implementation(implementation)
        self._per_sample = implementation == PER_SAMPLE

    def _choose_attention(self) -> None:
        """Attend per sample if that gives, for this model, what its own masked attention gives."""
        masked = self.model.config._attn_implementation
        self.model.eval()
        with torch.no_grad():
            expected = self._logits(probe_row())
            try:
                self.attend(PER_SAMPLE)
                same = torch.allclose(self._logits(probe_row()), expected, rtol=1e-4, atol=1e-4)
            except (NotImplementedError, TypeError, ValueError) as error:
                log.info("attention is masked, not per sample: %s", error)
                same = False
        if not same:
            self.attend(masked)
        self.model.train()


def _adamw(model: Any, settings: TrainerSection, *, device: torch.device) -> torch.optim.AdamW:
    """Return AdamW, fused where the device has it, decaying matrices and not norms or biases."""
    parameters = [parameter for _, parameter in trainable(model)]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=settings.learning_rate,
        betas=ADAM_BETAS,
        fused=device.type in ("cpu", "cuda", "mps"),
    )
