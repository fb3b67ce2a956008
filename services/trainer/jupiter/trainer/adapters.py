"""LoRA: a student of which only small matrices beside the frozen ones learn.

Owns: adding adapters to a model, and its weights as if they were none. Does not know: training.

`peft` makes the layers and their product. They are put into the model itself, without a wrapper, so that everything
else treats it as the model it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from jupiter.config.sections import TrainerSection
from jupiter.errors import ConfigError

__all__ = ["add_adapter", "plain_weights"]

ALL_LINEAR = "all-linear"
_ADAPTER = "default"
_FROZEN = ".base_layer."
_LEARNED = ".lora_"


def add_adapter(model: Any, settings: TrainerSection) -> Any:
    """Return the model with the adapter that the settings name, its own weights frozen. Raises ConfigError.

    The adapter's first product is zero: the model computes what it did.
    """
    if settings.adapter == "none":
        return model
    from peft import LoraConfig, inject_adapter_in_model

    targets = settings.adapter_targets
    torch.manual_seed(settings.seed)  # the same first matrices on every rank
    lora = LoraConfig(
        r=settings.adapter_rank,
        lora_alpha=settings.adapter_alpha,
        target_modules=targets if targets == ALL_LINEAR else targets.split(","),
    )
    try:
        return inject_adapter_in_model(lora, model)
    except ValueError as error:
        raise ConfigError(f"trainer.adapter_targets is {targets!r}: {error}") from error


def plain_weights(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors of the model's state under the names that they have without adapters, those merged in.

    Tied weights are the same object. Where tensors are spread over ranks, all ranks must go through this together.
    """
    for name, tensor in model.state_dict(keep_vars=True).items():
        if _LEARNED in name:
            continue
        layer, frozen, parameter = name.partition(_FROZEN)
        if frozen and parameter == "weight":
            change = model.get_submodule(layer).get_delta_weight(_ADAPTER)
            yield f"{layer}.{parameter}", tensor.detach() + change.detach()
        else:
            yield f"{layer}.{parameter}" if frozen else name, tensor
