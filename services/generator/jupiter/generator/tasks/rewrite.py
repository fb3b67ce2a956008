"""`rewrite`: the passage in other words, as a plain answer to a question about its title or subject.

For prose of any domain; where the passage is a reference entry, `restate` and `explain` ask more.
"""

from __future__ import annotations

from jupiter.generator.tasks import Parsed, Rendered, Request, Unusable

__all__ = ["TASK"]

# A model that has nothing to add repeats the task; such a completion is no rewriting.
_REFUSALS = ("rewrite", "here is", "sure")


class Rewrite:
    template = "rewrite/1"

    def render(self, request: Request) -> Rendered | Unusable:
        if request.chunk.title is None:
            return Unusable(reason="no_title")
        return Rendered(
            text=f"Rewrite this passage about {request.chunk.title} for {request.audience}, keeping every fact and"
            f" adding none. Write only the rewritten passage.\n\n{request.chunk.text}",
            chat=True,
        )

    def parse(self, completion: str, request: Request) -> Parsed | Unusable:
        text = completion.strip()
        if not text:
            return Unusable(reason="empty")
        if text.lower().startswith(_REFUSALS):
            return Unusable(reason="talks_about_the_task")
        return Parsed(instruction=f"What do you know about {request.chunk.title}?", response=text)


TASK = Rewrite()
