"""How the next token is chosen, for many rows at once, each with draws of its own.

Owns: temperature, nucleus (top-p) and the per-row random numbers. Does not know: models or text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["Draws", "choose"]

# The nucleus nearly always lies within so many tokens; a full sort of the vocabulary costs more than the model's step.
NUCLEUS_TOKENS = 256


class Draws:
    """Uniform numbers in [0, 1): row `i`, step `t` is the t-th number of a generator seeded with `seeds[i]`.

    They depend on nothing else, so a row draws the same in whatever batch it stands.
    """

    def __init__(self, seeds: Sequence[int], *, steps: int) -> None:
        import torch

        self._table = torch.stack(
            [
                torch.rand(steps, generator=torch.Generator().manual_seed(seed % (1 << 63)), dtype=torch.float64)
                for seed in seeds
            ]
        )

    def at(self, step: int, rows: Sequence[int]) -> torch.Tensor:
        """Return the numbers of these rows (by their place in `seeds`) for one step."""
        return self._table[list(rows), step]


def choose(logits: torch.Tensor, *, temperature: float, top_p: float, draws: torch.Tensor) -> torch.Tensor:
    """Return one token per row of `logits` (rows x vocabulary): the inverse of the nucleus' distribution at `draws`.

    The nucleus is the smallest set of likeliest tokens whose probability reaches `top_p`; 0 as temperature is greedy.
    """
    import torch

    if temperature == 0:
        return logits.argmax(dim=-1)
    scaled = logits.float() / temperature
    total = scaled.logsumexp(dim=-1, keepdim=True)
    width = min(NUCLEUS_TOKENS, scaled.shape[-1])
    values, tokens = scaled.topk(width, dim=-1)
    probabilities = _probabilities(values, total)
    if width < scaled.shape[-1] and bool((probabilities.sum(dim=-1) < top_p).any()):
        values, tokens = scaled.sort(dim=-1, descending=True)
        probabilities = _probabilities(values, total)
    before = probabilities.cumsum(dim=-1) - probabilities
    kept = torch.where(before < top_p, probabilities, 0.0)  # the first token always stays: nothing is before it
    reached = kept.cumsum(dim=-1)
    targets = draws[:, None] * reached[:, -1:]
    places = torch.searchsorted(reached, targets, right=True).clamp(max=tokens.shape[-1] - 1)
    return tokens.gather(-1, places.to(tokens.device))[:, 0]


def _probabilities(values: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
    """Return exact probabilities on the CPU: MPS has no float64, and the few candidates are cheap to move."""
    return (values - total).cpu().double().exp()
