"""`restate`: the passage in other words, asked for by its name: description -> name."""

from __future__ import annotations

from jupiter.generator.tasks import Parsed, Rendered, Request, Unusable
from jupiter.generator.tasks._examples import Example, few_shot, one_line

__all__ = ["TASK"]


class Restate:
    template = "restate/1"

    def render(self, request: Request) -> Rendered | Unusable:
        if request.chunk.title is None:
            return Unusable(reason="no_title")
        return few_shot(_block, f"Sentence: {request.chunk.text}\nSame meaning, other words:")

    def parse(self, completion: str, request: Request) -> Parsed | Unusable:
        line = one_line(completion)
        if isinstance(line, Unusable):
            return line
        return Parsed(instruction=f"{line} What is it called?", response=request.chunk.title or "")


def _block(example: Example) -> str:
    return f"Sentence: {example.documentation}\nSame meaning, other words: {example.restated}"


TASK = Restate()
