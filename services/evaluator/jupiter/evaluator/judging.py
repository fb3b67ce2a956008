"""The judge's part in an evaluation: which answers it compares, and what its pairs count as.

Owns: the questions put to the judge, and the `judged` items of coherence that a usable judgement gives.
Does not know: how a judge is asked or believed (`judge`), or what the scores decide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from jupiter.evaluator.examination import Examined
from jupiter.evaluator.items import Half, Item
from jupiter.evaluator.judge import Judge, Question, judge_pairs, party_of
from jupiter.manifests import Committed
from jupiter.reports import ItemResult, Judgement

__all__ = ["judge_answers", "judged_items", "questions_of"]

KIND = "judged"
ASKED: Mapping[str, str] = {"generation_health": "What should one know about {title}?"}
"""Kinds whose answers are texts of the model's own, and what they were asked in plain words: each model was given the
prompt that suits it best, and the judge sees neither."""


def questions_of(items: Sequence[Item]) -> list[Question]:
    """Return what the judge is asked about these items."""
    return [
        Question(item_id=item.item_id, cluster=item.cluster, text=ASKED[item.kind].format(**item.fields))
        for item in items
        if item.kind in ASKED
    ]


def judge_answers(
    judge: Judge,
    items: Sequence[Item],
    *,
    candidate: Examined,
    generator: Examined,
    checkpoint: Committed,
    version: Committed,
    progress: Callable[[int], None],
) -> Judgement:
    """Let the judge compare what both models answered, after its probes. Blocks. Raises what `progress` raises."""
    questions = questions_of(items)

    def answers(examined: Examined) -> Mapping[str, str]:
        return {question.item_id: examined.scores[question.item_id].answer for question in questions}

    return judge_pairs(
        judge,
        questions,
        answers(candidate),
        answers(generator),
        candidate=party_of("candidate", checkpoint.manifest),
        generator=party_of("generator", version.manifest),
        progress=progress,
    )


def judged_items(judgement: Judgement | None, *, half: Half) -> tuple[ItemResult, ...]:
    """Return the pairs of a usable judgement as items of coherence; an unusable one gives none."""
    if judgement is None or not judgement.usable:
        return ()
    return tuple(
        ItemResult(
            item_id=f"{KIND}-{pair.item_id}",
            dimension="coherence",
            kind=KIND,
            cluster=pair.cluster,
            half=half,
            candidate=pair.candidate,
            generator=pair.generator,
        )
        for pair in judgement.pairs
    )
