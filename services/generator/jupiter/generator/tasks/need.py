"""`need`: what a programmer wants to do, answered by the name of what does it."""

from __future__ import annotations

from jupiter.generator.tasks import Parsed, Rendered, Request, Unusable
from jupiter.generator.tasks._examples import Example, few_shot, one_line

__all__ = ["TASK"]


class Need:
    template = "need/1"

    def render(self, request: Request) -> Rendered | Unusable:
        if request.chunk.title is None:
            return Unusable(reason="no_title")
        last = f"Documentation: {request.chunk.text}\nGood for programmers who want to:"
        return few_shot(_block, last)

    def parse(self, completion: str, request: Request) -> Parsed | Unusable:
        line = one_line(completion)
        if isinstance(line, Unusable):
            return line
        return Parsed(
            instruction=f"I want to {line.rstrip('.')}. What should I use?", response=request.chunk.title or ""
        )


def _block(example: Example) -> str:
    return f"Documentation: {example.documentation}\nGood for programmers who want to: {example.need}"


TASK = Need()
