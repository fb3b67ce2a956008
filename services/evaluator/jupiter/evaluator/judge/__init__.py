"""A judge that compares the answers of candidate and generator, where one is configured and can be believed.

Owns: the way in: `open_judge` once, `judge_pairs` per evaluation. Each part is a module: what a judge is
(`comparing`), the kinds (`kinds`, found by their names), the prompt (`wording`), the probes before each use (`probes`,
their texts in `cases`), the pairs (`pairs`), who must not judge whom (`parties`).
Does not know: benchmarks, reports as files, what the scores count for.

A judge is evidence only while it is shown to work. One that is a contestant, fails a probe, or leaves too many pairs
without a verdict is unusable: the judgement says so and why, and holds no score.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from jupiter.config import ClusterConfig
from jupiter.evaluator.judge.comparing import Comparison, Failed, Judge, JudgeTrouble, Sitting, Winner
from jupiter.evaluator.judge.kinds import create_judge, judge_kinds
from jupiter.evaluator.judge.pairs import Question, judge_pairs, judge_total
from jupiter.evaluator.judge.parties import Party, party_of

__all__ = [
    "Comparison",
    "Failed",
    "Judge",
    "JudgeTrouble",
    "Party",
    "Question",
    "Sitting",
    "Winner",
    "judge_kinds",
    "judge_pairs",
    "judge_total",
    "open_judge",
    "party_of",
]

NONE = "none"


def open_judge(config: ClusterConfig, environ: Mapping[str, str] | None = None) -> Judge | None:
    """Return the configured judge, or None where there is none. Connects and loads nothing. Raises ConfigError.

    `environ` holds the endpoint's key; it defaults to the process's environment.
    """
    if config.judge.kind == NONE:
        return None
    return create_judge(config, os.environ if environ is None else environ)
