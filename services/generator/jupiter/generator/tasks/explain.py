"""`explain`: the named thing explained in one plain sentence: name -> description.

The response does not repeat the name as a label: the pair of name and text must lie across instruction and response,
or permuting the responses (the negative control) would leave it intact.
"""

from __future__ import annotations

from jupiter.generator.tasks import Parsed, Rendered, Request, Unusable
from jupiter.generator.tasks._examples import Example, few_shot, one_line

__all__ = ["TASK"]


class Explain:
    template = "explain/1"

    def render(self, request: Request) -> Rendered | Unusable:
        if request.chunk.title is None:
            return Unusable(reason="no_title")
        last = f"Name: {request.chunk.title}\nDocumentation: {request.chunk.text}\nFor beginners:"
        return few_shot(_block, last)

    def parse(self, completion: str, request: Request) -> Parsed | Unusable:
        line = one_line(completion)
        if isinstance(line, Unusable):
            return line
        return Parsed(instruction=f"Explain {request.chunk.title}.", response=line)


def _block(example: Example) -> str:
    return f"Name: {example.name}\nDocumentation: {example.documentation}\nFor beginners: {example.explained}"


TASK = Explain()
