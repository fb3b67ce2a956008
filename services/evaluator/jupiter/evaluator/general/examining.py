"""One model on the general suite.

Owns: turning likelihoods into a figure per item: right or wrong, or bits per byte.
Does not know: the other model, nor the forward passes (`likelihood`).

No prompt is tuned and no example shown, so that nothing but the model differs. The suite is 5,300 tokens of SmolLM2,
four to five seconds on two cores at the 1,100 tokens a second measured there (docs/experiments.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from jupiter.evaluator.general.suite import Cloze, Passage, general_items
from jupiter.evaluator.unscored import Unscored

__all__ = ["examine"]

PASSAGES_TOGETHER = 4
"""Every token of a passage needs the whole vocabulary: 4 passages of 100 tokens over 128,000 entries are 0.2 GB."""

Progress = Callable[[int], None]


def examine(model: Any, tokenizer: Any, progress: Progress) -> dict[str, float]:
    """Return item id to figure: 1 or 0 for knowledge, bits per byte for text and code. Raises Unscored.

    The model must be in eval mode. `progress(1)` is called after each item and may block or raise.
    """
    figures: dict[str, float] = {}
    for item_id, figure in _figures(model, tokenizer):
        if not math.isfinite(figure):
            raise Unscored(
                f"general item {item_id} has figure {figure}: the model yields no usable numbers; "
                "its weights are damaged or the precision is too low"
            )
        figures[item_id] = figure
        progress(1)
    return figures


def _figures(model: Any, tokenizer: Any) -> Iterator[tuple[str, float]]:
    opening = _opening(tokenizer)
    yield from _knowledge(model, tokenizer, opening, [item for item in general_items() if isinstance(item, Cloze)])
    passages = [item for item in general_items() if isinstance(item, Passage)]
    passages.sort(key=lambda item: item.scored_bytes)  # of like length together: little padding
    for start in range(0, len(passages), PASSAGES_TOGETHER):
        yield from _bits_per_byte(model, tokenizer, opening, passages[start : start + PASSAGES_TOGETHER])


def _opening(tokenizer: Any) -> str:
    """Return the begin token where the tokenizer itself puts one before a text; many have none, or do not."""
    begin = tokenizer.bos_token
    if begin is None:
        return ""
    first = list(tokenizer("The")["input_ids"])[:1]
    return str(begin) if first == [tokenizer.bos_token_id] else ""


def _knowledge(model: Any, tokenizer: Any, opening: str, items: Sequence[Cloze]) -> Iterator[tuple[str, float]]:
    """Yield 1 where the right ending is likelier per byte than each wrong one; a tie is not knowing."""
    from jupiter.evaluator.likelihood import continuations

    prompts, options = [item.start for item in items], [item.options for item in items]
    for index, results in continuations(model, tokenizer, shared=opening, prompts=prompts, options=options):
        right, *wrong = (result.log_probability / result.bytes for result in results)
        # One ending without a number makes the comparison meaningless, not wrong.
        usable = all(map(math.isfinite, (right, *wrong)))
        yield items[index].item_id, float(right > max(wrong)) if usable else math.nan


def _bits_per_byte(model: Any, tokenizer: Any, opening: str, items: Sequence[Passage]) -> Iterator[tuple[str, float]]:
    from jupiter.evaluator.likelihood import continuations

    prompts, rests = zip(*(item.parts for item in items), strict=True)
    options = [(rest,) for rest in rests]
    for index, (result,) in continuations(model, tokenizer, shared=opening, prompts=prompts, options=options):
        yield items[index].item_id, -result.log_probability / math.log(2) / result.bytes
