"""The worked examples that the few-shot tasks share.

Owns: three imaginary entries, described in every way that a task asks for. Written for this project and about no real
library, so that nothing of them can be mistaken for a fact of any domain.

A 135M model follows examples better than instructions, and plain text better than a chat template.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jupiter.generator.tasks import Rendered, Unusable

__all__ = ["EXAMPLES", "Example", "few_shot", "one_line", "short_name"]


@dataclass(frozen=True, kw_only=True)
class Example:
    name: str
    documentation: str
    restated: str
    need: str
    explained: str
    question: str
    answer: str


EXAMPLES = (
    Example(
        name="string.length",
        documentation="Return the number of characters in the text.",
        restated="Counts how many characters a text has.",
        need="find out how long a text is",
        explained="length tells you how many characters a text has, so you know how long it is.",
        question="What does string.length return?",
        answer="It returns the number of characters in the text.",
    ),
    Example(
        name="network.HangUpError",
        documentation="Raised when the connection was closed by the other side.",
        restated="The error for a connection that the remote end has shut.",
        need="notice that the remote end has hung up",
        explained="HangUpError is the error you get when the other computer closes the connection.",
        question="When is network.HangUpError raised?",
        answer="It is raised when the other side closed the connection.",
    ),
    Example(
        name="canvas.pen",
        documentation="Set the colour in which lines are drawn.",
        restated="Chooses which colour new lines will have.",
        need="draw lines in another colour",
        explained="pen lets you choose the colour of the lines that you draw.",
        question="How do you change the colour of the lines on a canvas?",
        answer="Call canvas.pen with the colour in which lines shall be drawn.",
    ),
)


def few_shot(block: Callable[[Example], str], last: str, *, stop: tuple[str, ...] = ("\n",)) -> Rendered:
    """Return the examples, each as `block` writes it, and the unfinished block that the model completes.

    `last` must not end in a space: the model's tokens begin with theirs.
    """
    return Rendered(text="\n\n".join([*(block(example) for example in EXAMPLES), last]), stop=stop, own=last)


def one_line(completion: str) -> str | Unusable:
    """Return the completion's single line, stripped."""
    line = completion.strip()
    if not line:
        return Unusable(reason="empty")
    return line if "\n" not in line else Unusable(reason="several_lines")


def short_name(title: str) -> str:
    """Return the last component of a dotted name: `json.dumps` -> `dumps`."""
    return title.rpartition(".")[2]
