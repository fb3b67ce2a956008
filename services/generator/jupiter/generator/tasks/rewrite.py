"""`rewrite`: the passage in other words, as a plain answer to a question about its title, or its first words.

For prose of any domain; where the passage is a reference entry, `restate` and `explain` ask more.
"""

from __future__ import annotations

from jupiter.generator.tasks import Parsed, Rendered, Request, Unusable
from jupiter.records import Chunk

__all__ = ["TASK"]

OPENING_WORDS = 8
"""Of a passage without a title, so many words say which one is meant."""
# A model that has nothing to add repeats the task; such a completion is no rewriting.
_REFUSALS = ("rewrite", "here is", "sure")


class Rewrite:
    template = "rewrite/2"

    def render(self, request: Request) -> Rendered | Unusable:
        about = f" about {request.chunk.title}" if request.chunk.title else ""
        return Rendered(
            text=f"Rewrite this passage{about} for {request.audience}, keeping every fact and"
            f" adding none. Write only the rewritten passage.\n\n{request.chunk.text}",
            chat=True,
        )

    def parse(self, completion: str, request: Request) -> Parsed | Unusable:
        text = completion.strip()
        if not text:
            return Unusable(reason="empty")
        if text.lower().startswith(_REFUSALS):
            return Unusable(reason="talks_about_the_task")
        return Parsed(instruction=_question(request.chunk), response=text)


def _question(chunk: Chunk) -> str:
    if chunk.title:
        return f"What do you know about {chunk.title}?"
    opening = " ".join(chunk.text.split()[:OPENING_WORDS])
    return f"What does the passage say that begins with “{opening}”?"


TASK = Rewrite()
