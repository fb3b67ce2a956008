"""Scores of one model on a frozen benchmark.

Owns: rendering items with a prompt setting, and turning likelihoods and answers into scores of 0 to 1.
Does not know: which model is candidate or generator, which half is asked, nor what the scores decide.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jupiter.evaluator.benchmark import Benchmark
from jupiter.evaluator.health import health_score
from jupiter.evaluator.items import Item, ItemKind, PromptSetting, item_kinds
from jupiter.records import Record

if TYPE_CHECKING:
    from jupiter.evaluator.likelihood import Continuation

__all__ = ["ItemScore", "Progress", "score_items", "score_kind"]

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


@dataclass(frozen=True, kw_only=True)
class _Asking:
    """One model, asked items of one kind with one prompt setting."""

    model: Any
    tokenizer: Any
    kind: ItemKind
    setting: PromptSetting
    benchmark: Benchmark

    def prompt(self, item: Item) -> str:
        text = self.kind.templates[self.setting.template].format(**item.fields)
        if not text.startswith(CHAT_MARK):
            return text
        text = text.removeprefix(CHAT_MARK)
        if not self.tokenizer.chat_template:
            return f"{text}\n"
        message = [{"role": "user", "content": text}]
        return str(self.tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True))

    def shared(self) -> str:
        """Return the worked examples as they stand before every question."""
        worked = self.benchmark.examples.get(self.kind.name, ())[: self.setting.shots]
        separator = "" if self.kind.terminator.endswith("\n\n") else "\n"
        return "".join(f"{self.prompt(item)}{item.answer}{self.kind.terminator}{separator}" for item in worked)

    def likelihoods(
        self, items: Sequence[Item], options: Sequence[Sequence[str]]
    ) -> Iterator[tuple[Item, list[Continuation]]]:
        """Yield each item with what the model thinks of its options."""
        from jupiter.evaluator.likelihood import continuations

        prompts = [self.prompt(item) for item in items]
        for index, results in continuations(
            self.model, self.tokenizer, shared=self.shared(), prompts=prompts, options=options
        ):
            yield items[index], results


def _score_exact(asking: _Asking, items: Sequence[Item]) -> Iterator[ItemScore]:
    for item, (result,) in asking.likelihoods(items, [(item.answer,) for item in items]):
        # A new line and the end token both end an answer: which of them a model learned says nothing about the fact.
        right = result.greedy and result.ended
        yield ItemScore(
            item_id=item.item_id,
            score=float(right),
            answer=item.answer if right else "",
            log_probability=result.log_probability / result.bytes,
        )


def _score_choice(asking: _Asking, items: Sequence[Item]) -> Iterator[ItemScore]:
    for item, results in asking.likelihoods(items, [item.choices for item in items]):
        per_byte = [result.log_probability / result.bytes for result in results]
        right = item.choices.index(item.answer)
        best = max(range(len(per_byte)), key=per_byte.__getitem__)
        yield ItemScore(
            item_id=item.item_id,
            score=float(best == right),
            answer=item.choices[best],
            log_probability=per_byte[right],
        )


def _score_health(asking: _Asking, items: Sequence[Item]) -> Iterator[ItemScore]:
    from jupiter.evaluator.likelihood import generate

    prompts = [asking.prompt(item) for item in items]
    for index, answer in generate(
        asking.model, asking.tokenizer, prompts, new_tokens_max=HEALTH_NEW_TOKENS_MAX, stop="\n\n"
    ):
        score = health_score(answer.text, finished=answer.finished, band=asking.benchmark.band)
        yield ItemScore(
            item_id=items[index].item_id,
            score=score,
            answer=answer.text,
            log_probability=math.log(max(score, 1e-3)),
        )


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
    asking = _Asking(model=model, tokenizer=tokenizer, kind=definition, setting=setting, benchmark=benchmark)
    scores: list[ItemScore] = []
    for score in _METHODS[definition.method](asking, items):
        scores.append(score)
        progress(1)
    return scores


def score_items(
    model: Any,
    tokenizer: Any,
    *,
    items: Sequence[Item],
    settings: Mapping[str, PromptSetting],
    benchmark: Benchmark,
    progress: Progress,
) -> dict[str, ItemScore]:
    """Score `items` of the benchmark with the frozen settings; returns item id to score."""
    by_kind: dict[str, list[Item]] = {}
    for item in items:
        by_kind.setdefault(item.kind, []).append(item)
    scored: dict[str, ItemScore] = {}
    for kind, of_kind in by_kind.items():
        results = score_kind(
            model,
            tokenizer,
            kind=kind,
            setting=settings[kind],
            items=of_kind,
            benchmark=benchmark,
            progress=progress,
        )
        scored |= {result.item_id: result for result in results}
    return scored
