"""`question_answer`: a question that the passage answers, and the answer. Works for passages without a title."""

from __future__ import annotations

from jupiter.generator.tasks import Parsed, Rendered, Request, Unusable
from jupiter.generator.tasks._examples import Example, few_shot

__all__ = ["TASK"]


class QuestionAnswer:
    template = "question_answer/1"

    def render(self, request: Request) -> Rendered | Unusable:
        subject = f"Name: {request.chunk.title}\n" if request.chunk.title else ""
        last = f"{subject}Passage: {request.chunk.text}\nQuestion of {request.audience}, {request.difficulty}:"
        return few_shot(_block, last, stop=("\n\n", "\nName:", "\nPassage:"))

    def parse(self, completion: str, request: Request) -> Parsed | Unusable:  # noqa: ARG002 - the interface
        question, marker, answer = completion.partition("\nAnswer:")
        question, answer = question.strip(), answer.strip()
        if not marker or not answer:
            return Unusable(reason="no_answer")
        if not question.endswith("?") or "\n" in question:
            return Unusable(reason="no_question")
        return Parsed(instruction=question, response=answer.partition("\n")[0].rstrip())


def _block(example: Example) -> str:
    return (
        f"Name: {example.name}\nPassage: {example.documentation}\n"
        f"Question of a beginner, basic: {example.question}\nAnswer: {example.answer}"
    )


TASK = QuestionAnswer()
