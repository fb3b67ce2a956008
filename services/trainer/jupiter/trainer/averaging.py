"""What a checkpoint publishes between the model that a run began from and the student it has become.

Owns: that average. Does not know: training, which goes on from the student's own weights.

Fine-tuning on a narrow domain costs general ability; on the straight line between the two models most of that comes
back before the gain is lost (WiSE-FT, Wortsman et al. 2022, arXiv 2109.01903; measured in docs/decisions/0016).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from jupiter.modeling import load_model

__all__ = ["starting_weights", "towards"]


def starting_weights(directory: Path) -> Mapping[str, torch.Tensor]:
    """Return the weights of the model in `directory`, in bfloat16 on the CPU. Raises UnfitModel."""
    with torch.random.fork_rng():  # loading a model draws random numbers, and training's must not depend on that
        model, _ = load_model(directory, dtype="bfloat16", device="cpu", inference=False)
    weights: Mapping[str, torch.Tensor] = model.state_dict()
    return weights


def towards(start: torch.Tensor, student: torch.Tensor, *, share: float) -> torch.Tensor:
    """Return `start + share · (student − start)` on the CPU, in float32. Tensors of counts are the student's own."""
    if not student.is_floating_point():
        return student
    return torch.lerp(start.float(), student.detach().to("cpu", torch.float32), share)
