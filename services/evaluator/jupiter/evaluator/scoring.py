"""Scores of one model on a frozen benchmark.

Owns: rendering items with a prompt setting, and turning likelihoods and answers into scores of 0 to 1.
Does not know: which model is candidate or generator, nor what the scores decide.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jupiter.evaluator.benchmark import Benchmark
from jupiter.evaluator.health import health_score
from jupiter.evaluator.items import Item, ItemKind, PromptSetting, item_kinds
from jupiter.records import Record

__all__ = ["ItemScore", "score_items", "score_kind"]

CHAT_MARK = "<|chat|>"
"""A template that begins with it is rendered with the tokenizer's chat template, where there is one."""
HEALTH_NEW_TOKENS_MAX = 72

Progress = Callable[[int], None]
"""Called with the number of items scored since the last call; may raise to stop."""


class ItemScore(Record):
    """One model's result on one item."""

    item_id: str
    score: float
    """0 to 1."""
    answer: str
    """What the model answered, or its choice."""
    log_probability: float
    """Of the right answer, natural logarithm per byte: breaks ties in prompt tuning, gives bits per byte."""


def _rendered(kind: ItemKind, setting: PromptSetting, item: Item, tokenizer: Any) -> str:
    text = kind.templates[setting.template].format(**item.fields)
    if not text.startswith(CHAT_MARK):
        return text
    text = text.removeprefix(CHAT_MARK)
    if not tokenizer.chat_template:
        return f"{text}\n"
    message = [{"role": "user", "content": text}]
    return str(tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True))


def _shared(kind: ItemKind, setting: PromptSetting, benchmark: Benchmark, tokenizer: Any) -> str:
    """Return the worked examples as they stand before every question."""
    worked = benchmark.examples.get(kind.name, ())[: setting.shots]
    separator = "" if kind.terminator.endswith("\n\n") else "\n"
    return "".join(
        f"{_rendered(kind, setting, item, tokenizer)}{item.answer}{kind.terminator}{separator}" for item in worked
    )


def _score_exact(
    model: Any,
    tokenizer: Any,
    kind: ItemKind,
    setting: PromptSetting,
    items: Sequence[Item],
    benchmark: Benchmark,
    progress: Progress,
) -> list[ItemScore]:
    from jupiter.evaluator.likelihood import continuations

    prompts = [_rendered(kind, setting, item, tokenizer) for item in items]
    options = [[item.answer] for item in items]
    shared = _shared(kind, setting, benchmark, tokenizer)
    scores: list[ItemScore] = []
    for index, (result,) in continuations(model, tokenizer, shared=shared, prompts=prompts, options=options):
        item = items[index]
        # A new line and the end token both end an answer: which of them a model learned says nothing about the fact.
        right = result.greedy and result.ended
        answer = item.answer if right else ""
        per_byte = result.log_probability / result.bytes
        scores.append(ItemScore(item_id=item.item_id, score=float(right), answer=answer, log_probability=per_byte))
        progress(1)
    return scores


def _score_choice(
    model: Any,
    tokenizer: Any,
    kind: ItemKind,
    setting: PromptSetting,
    items: Sequence[Item],
    benchmark: Benchmark,
    progress: Progress,
) -> list[ItemScore]:
    from jupiter.evaluator.likelihood import continuations

    prompts = [_rendered(kind, setting, item, tokenizer) for item in items]
    shared = _shared(kind, setting, benchmark, tokenizer)
    scores: list[ItemScore] = []
    for index, results in continuations(
        model, tokenizer, shared=shared, prompts=prompts, options=[i.choices for i in items]
    ):
        item = items[index]
        per_byte = [result.log_probability / result.bytes for result in results]
        right = item.choices.index(item.answer)
        best = max(range(len(per_byte)), key=per_byte.__getitem__)
        scores.append(
            ItemScore(
                item_id=item.item_id,
                score=float(best == right),
                answer=item.choices[best],
                log_probability=per_byte[right],
            )
        )
        progress(1)
    return scores


def _score_health(
    model: Any,
    tokenizer: Any,
    kind: ItemKind,
    setting: PromptSetting,
    items: Sequence[Item],
    benchmark: Benchmark,
    progress: Progress,
) -> list[ItemScore]:
    from jupiter.evaluator.likelihood import generate

    prompts = [_rendered(kind, setting, item, tokenizer) for item in items]
    scores: list[ItemScore] = []
    for index, answer in generate(model, tokenizer, prompts, new_tokens_max=HEALTH_NEW_TOKENS_MAX, stop="\n\n"):
        score = health_score(answer.text, finished=answer.finished, band=benchmark.band)
        scores.append(
            ItemScore(
                item_id=items[index].item_id,
                score=score,
                answer=answer.text,
                log_probability=math.log(max(score, 1e-3)),
            )
        )
        progress(1)
    return scores


_METHODS = {"exact": _score_exact, "choice": _score_choice, "health": _score_health}


def score_kind(
    model: Any,
    tokenizer: Any,
    *,
    kind: str,
    setting: PromptSetting,
    items: Sequence[Item],
    benchmark: Benchmark,
    progress: Progress,
) -> list[ItemScore]:
    """Score items of one kind with one prompt setting."""
    definition = item_kinds()[kind]
    return _METHODS[definition.method](model, tokenizer, definition, setting, items, benchmark, progress)


def score_items(
    model: Any, tokenizer: Any, *, benchmark: Benchmark, settings: Mapping[str, PromptSetting], progress: Progress
) -> dict[str, ItemScore]:
    """Score the whole benchmark with the frozen settings; returns item id to score."""
    by_kind: dict[str, list[Item]] = {}
    for item in benchmark.items:
        by_kind.setdefault(item.kind, []).append(item)
    scored: dict[str, ItemScore] = {}
    for kind, items in by_kind.items():
        results = score_kind(
            model, tokenizer, kind=kind, setting=settings[kind], items=items, benchmark=benchmark, progress=progress
        )
        scored |= {result.item_id: result for result in results}
    return scored
