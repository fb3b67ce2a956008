"""No document, topic or template may fill the data.

Per document over the run (`curator.document_samples_max`): more rewritings of one passage add little and teach its
wording. Per topic (the document's group) and template as a share of the batch (`curator.topic_share_max`,
`curator.template_share_max`), never less than an equal share: a batch of one template is not cut.
"""

from __future__ import annotations

import math
from collections import Counter

from jupiter.curator.candidate import Candidate
from jupiter.curator.filters.base import KEPT, Context, Filter, Verdict


class Caps(Filter):
    name = "caps"
    order = 1000

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._documents: Counter[str] = Counter()
        self._topics: Counter[str] = Counter()
        self._templates: Counter[str] = Counter()
        groups = {candidate.group for candidate in context.batch}
        templates = {_template(candidate) for candidate in context.batch}
        self._topic_max = _cap(context.settings.topic_share_max, kinds=len(groups), samples=len(context.batch))
        self._template_max = _cap(context.settings.template_share_max, kinds=len(templates), samples=len(context.batch))

    def judge(self, candidate: Candidate) -> Verdict:
        document_id = candidate.sample.document_id
        made = self.context.history.samples_of(document_id) + self._documents[document_id]
        if made >= self.context.settings.document_samples_max:
            return Verdict(kept=False, reason="document_cap", score=float(made))
        if self._topics[candidate.group] >= self._topic_max:
            return Verdict(kept=False, reason="topic_cap", score=float(self._topic_max))
        if self._templates[_template(candidate)] >= self._template_max:
            return Verdict(kept=False, reason="template_cap", score=float(self._template_max))
        return KEPT

    def remember(self, candidate: Candidate) -> None:
        self._documents[candidate.sample.document_id] += 1
        self._topics[candidate.group] += 1
        self._templates[_template(candidate)] += 1


def _template(candidate: Candidate) -> str:
    return f"{candidate.sample.task}/{candidate.sample.template}"


def _cap(share_max: float, *, kinds: int, samples: int) -> int:
    """Return the most samples of one kind: its share of the batch, or an equal share where that is more."""
    return max(1, math.ceil(samples * max(share_max, 1 / max(1, kinds))))
