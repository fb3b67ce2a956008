"""Whether an engine really computes with the weights that were asked for: it is asked what only they answer.

Owns: the questions. Does not know: when they are asked, nor what happens to an engine that fails.

Two proofs. Against golden.json, which another backend recorded: each golden token's log-probability, given those before
it. And, when weights come back that were here before, against what this backend itself answered then, greedily and
token by token: on one machine the two are all but equal, so this finds what hides within the first one's tolerance
(a layer that kept the weights of a version not far away).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jupiter.modeling import Answer, AttestationError, Golden, GoldenOutput, attest_answer

__all__ = ["GreedyAnswer", "answer_greedily", "check_golden", "compare"]

SAME_BACKEND_TOLERANCE = 0.02
"""Nats between two answers of one backend on one machine. Measured: 0, whatever came between."""

_numbers = itertools.count()


@dataclass(frozen=True, kw_only=True)
class GreedyAnswer:
    """A greedy answer."""

    prompt: str
    tokens: tuple[int, ...]
    log_probabilities: tuple[float, ...]


async def check_golden(llm: Any, golden: Golden, *, tolerance: float) -> None:
    """Raise AttestationError unless the engine gives the golden tokens the recorded probabilities."""
    for output in golden.outputs:
        attest_answer(output, await _answer(llm, output), tolerance)


async def answer_greedily(llm: Any, golden: Golden) -> tuple[GreedyAnswer, ...]:
    """Answer the golden prompts greedily, one at a time, so that no neighbour changes the rounding."""
    return tuple([await _greedy(llm, output) for output in golden.outputs])


def compare(recorded: Sequence[GreedyAnswer], seen: Sequence[GreedyAnswer]) -> None:
    """Raise AttestationError unless both are the answers of the same weights."""
    for was, now in zip(recorded, seen, strict=True):
        for place, (before, after) in enumerate(zip(was.log_probabilities, now.log_probabilities, strict=True)):
            if not abs(after - before) <= SAME_BACKEND_TOLERANCE:  # `not <=`, so that NaN fails
                raise AttestationError(
                    f"canary {was.prompt!r}, token {place}: {now.tokens[place]} at log-probability {after:.4f}, these"
                    f" weights answered {was.tokens[place]} at {before:.4f} before, tolerance {SAME_BACKEND_TOLERANCE}"
                )
            if was.tokens[place] != now.tokens[place]:
                break  # two tokens that close are a tie; what follows answers another text


async def _answer(llm: Any, output: GoldenOutput) -> Answer:
    from vllm import SamplingParams

    asked = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=1)
    final = await _last(llm, [*output.prompt_tokens, *output.tokens], asked)
    rows = final.prompt_logprobs[len(output.prompt_tokens) :]
    likeliest = [max(row.items(), key=lambda item: item[1].logprob) for row in rows]
    return Answer(
        log_probabilities=[row[token].logprob for row, token in zip(rows, output.tokens, strict=True)],
        choices=[token for token, _ in likeliest],
        choice_log_probabilities=[entry.logprob for _, entry in likeliest],
    )


async def _greedy(llm: Any, output: GoldenOutput) -> GreedyAnswer:
    from vllm import SamplingParams

    asked = SamplingParams(temperature=0, max_tokens=len(output.tokens), logprobs=0, ignore_eos=True)
    (made,) = (await _last(llm, list(output.prompt_tokens), asked)).outputs
    return GreedyAnswer(
        prompt=output.prompt,
        tokens=tuple(made.token_ids),
        log_probabilities=tuple(row[token].logprob for row, token in zip(made.logprobs, made.token_ids, strict=True)),
    )


async def _last(llm: Any, tokens: list[int], asked: Any) -> Any:
    final = None
    async for output in llm.generate({"prompt_token_ids": tokens}, asked, f"canary-{next(_numbers)}"):
        final = output
    return final
