"""`locate`: the passage in other words, asked for by where it belongs: description -> container (`json`).

Without it a student answers every question about a passage with a full title, whatever was asked.
"""

from __future__ import annotations

from jupiter.generator.tasks import Parsed, Rendered, Request, Unusable
from jupiter.generator.tasks._examples import Example, few_shot, one_line

__all__ = ["TASK"]


class Locate:
    template = "locate/1"

    def render(self, request: Request) -> Rendered | Unusable:
        if request.chunk.title is None:
            return Unusable(reason="no_title")
        if "." not in request.chunk.title:
            return Unusable(reason="no_container")
        return few_shot(_block, f"Sentence: {request.chunk.text}\nSame meaning, other words:")

    def parse(self, completion: str, request: Request) -> Parsed | Unusable:
        line = one_line(completion)
        if isinstance(line, Unusable):
            return line
        container = (request.chunk.title or "").rpartition(".")[0]
        return Parsed(instruction=f"{line} Where does this belong?", response=container)


def _block(example: Example) -> str:
    return f"Sentence: {example.documentation}\nSame meaning, other words: {example.restated}"


TASK = Locate()
