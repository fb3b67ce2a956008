"""The model that learns: forward, backward, optimizer.

Owns: the tensors (master weights, AdamW moments, random state) and one optimizer step over rows of tokens.
Does not know: where rows come from, how many there will be, nor where its state is kept.

Master weights are float32; under `precision: bfloat16` the matrix products run in bfloat16 (autocast).
Logits are computed only where there is a loss: with a vocabulary of 49,152 they are a fifth of all work.
"""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from jupiter.config.sections import TrainerSection
from jupiter.modeling import load_model, resolve_device
from jupiter.trainer.attention import PER_SAMPLE, probe_row
from jupiter.trainer.packing import Row
from jupiter.trainer.parallel import OneProcess, World

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
        self.device = torch.device(resolve_device(settings.device))
        self.world = world or OneProcess()
        model, self.tokenizer = load_model(directory, dtype="float32", device=str(self.device))
        model.train()
        if settings.activation_checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        self.model = self.world.wrap(model)
        self.optimizer = _adamw(self.model, settings, device=self.device)
        torch.manual_seed(settings.seed)  # dropout draws from it, where the model has any
        self._picks_logits = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._forward = torch.compile(self.model, dynamic=True) if self._compiles(settings) else self.model
        self._per_sample = False
        if self.device.type == "cpu":
            self._choose_attention()

    def step(self, rows: Sequence[Row], *, number: int) -> StepOutcome:
        """Take optimizer step `number` (0 is the run's first) on the mean loss over all learned tokens of `rows`."""
        learning_rate = self._set_learning_rate(number)
        learned = self.world.total(sum(len(row.targets) for row in self.world.share(rows)))
        summed = 0.0
        for row in self.world.share(rows):
            loss = self.row_loss(row)
            torch.autograd.backward(loss / learned)
            summed += loss.item()
        norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.gradient_clip))
        outcome = StepOutcome(
            loss=self.world.total(summed) / learned,
            tokens=sum(len(row.tokens) for row in rows),
            learned_tokens=int(learned),
            gradient_norm=norm,
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
        return functional.cross_entropy(logits.float(), torch.tensor(row.targets, device=self.device), reduction="sum")

    def _logits(self, row: Row) -> torch.Tensor:
        """Return the logits at `row.loss_at`."""
        keep = torch.tensor(row.loss_at, device=self.device)
        options: dict[str, Any] = {"logits_to_keep": keep} if self._picks_logits else {}
        if self._per_sample:
            options["sample_lengths"] = row.lengths
        logits: torch.Tensor = self._forward(
            input_ids=torch.tensor([row.tokens], device=self.device),
            position_ids=torch.tensor([row.positions], device=self.device),
            use_cache=False,
            **options,
        ).logits[0]
        return logits if self._picks_logits else logits[keep]

    def state(self) -> dict[str, torch.Tensor]:
        """Return every tensor that the next step depends on, by name: what `restore` takes."""
        tensors = {f"weight.{name}": parameter.detach() for name, parameter in self._parameters()}
        for name, parameter in self._parameters():
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"{key}.{name}"] = value
        tensors["random.cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(self.device)
        return tensors

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take over the tensors of `state`. The next step is then bit-equal to the one that would have followed.

        Weights are copied into the memory that the model already owns: its alignment, which some matrix libraries'
        rounding depends on, stays the allocator's.
        """
        with torch.no_grad():
            for name, parameter in self._parameters():
                parameter.copy_(tensors[f"weight.{name}"])
                self.optimizer.state[parameter] = {
                    key: tensors[f"{key}.{name}"].clone().to(self.device)
                    for key in ("step", "exp_avg", "exp_avg_sq")
                    if f"{key}.{name}" in tensors
                }
        torch.set_rng_state(tensors["random.cpu"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["random.cuda"], self.device)

    def served_weights(self) -> dict[str, torch.Tensor]:
        """Return the weights as a generator serves them: bfloat16, tied ones still one tensor."""
        cast: dict[int, torch.Tensor] = {}
        weights = {}
        for name, tensor in self.model.state_dict().items():
            if tensor.data_ptr() not in cast:
                cast[tensor.data_ptr()] = tensor.to("cpu", torch.bfloat16) if tensor.is_floating_point() else tensor
            weights[name] = cast[tensor.data_ptr()]
        return weights

    def _parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """Yield each parameter once, tied ones under one name."""
        yield from self.model.named_parameters()

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

    def _compiles(self, settings: TrainerSection) -> bool:
        return settings.compile and self.device.type != "cpu"


def _adamw(model: Any, settings: TrainerSection, *, device: torch.device) -> torch.optim.AdamW:
    """Return AdamW, fused where the device has it, decaying matrices and not norms or biases."""
    parameters = list(model.parameters())
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
