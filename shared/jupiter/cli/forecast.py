"""How long it takes until the next verdict, as far as anything was timed by then.

Owns: adding up what the stages say is left, and remembering how long an evaluation took. Does not know: how it is
shown.

Every figure is a measured rate of this run; where nothing was timed yet, that is what it says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jupiter.cli.progress import Status, duration

__all__ = ["Forecast"]

# States of the evaluator while it examines two models (`jupiter.evaluator.contest`).
DEVELOPMENT, SEALED = "evaluating", "confirming"
EXAMINING = frozenset({"loading", DEVELOPMENT, SEALED, "judging"})


class Forecast:
    """Follows one cycle, status by status."""

    def __init__(self) -> None:
        self._began_s: float | None = None
        self._half: str | None = None
        self._took_s: dict[str, float] = {}

    def line(self, status: Status, *, now_s: float) -> str | None:
        """Return the forecast in a line; None before training has said anything."""
        stages = {stage["name"]: stage for stage in status["stages"]}
        evaluation = stages.get("evaluation", {"state": "absent"})
        self._time(evaluation["state"], now_s)
        if evaluation["state"] == DEVELOPMENT:
            return self._of_development(evaluation)
        if evaluation["state"] == SEALED:
            return f"sealed half, {evaluation['detail']}: {_left(evaluation)}, then a shadow batch and the verdict"
        last = status["last_evaluation"]
        if last is not None and last["decision"] is None and last["stage"] == "shadow":
            return f"shadow batch of evaluation {last['epoch']}, the last step before its verdict" + _making(stages)
        return self._of_training(status["next_evaluation"])

    def _time(self, state: str, now_s: float) -> None:
        """Take the time of each examination, from loading the models to its end."""
        if state in EXAMINING:
            self._began_s = now_s if self._began_s is None else self._began_s
            self._half = state if state in (DEVELOPMENT, SEALED) else self._half
            return
        if self._began_s is not None and self._half is not None:
            self._took_s[self._half] = now_s - self._began_s
        self._began_s = self._half = None

    def _of_development(self, evaluation: Mapping[str, Any]) -> str:
        said = f"evaluation of {evaluation['detail']}: {_left(evaluation)}"
        if evaluation["total"] and evaluation["rate_per_s"]:
            whole_s = evaluation["total"] / evaluation["rate_per_s"]
            return f"{said}; should it pass, the sealed half takes up to about {duration(whole_s)} more"
        return said

    def _of_training(self, coming: Mapping[str, Any] | None) -> str | None:
        if coming is None:
            return None
        said = f"next evaluation at step {coming['step']:,} (now {coming['current_step']:,})"
        if coming["eta_s"] is None:
            return f"{said}: no step was timed yet"
        said = f"{said} in about {duration(coming['eta_s'])}"
        took_s = self._took_s.get(DEVELOPMENT)
        if took_s is None:
            return f"{said}; how long it takes is not timed yet"
        whole_s = coming["eta_s"] + took_s
        return f"{said}, its verdict in about {duration(whole_s)}: the last evaluation took {duration(took_s)}"


def _left(stage: Mapping[str, Any]) -> str:
    return "nothing timed yet" if stage["eta_s"] is None else f"about {duration(stage['eta_s'])} left"


def _making(stages: Mapping[str, Mapping[str, Any]]) -> str:
    """Say how long the generator still works, where that is what is waited for."""
    generation = stages.get("generation")
    if generation is None or generation["eta_s"] is None:
        return ""
    return f": about {duration(generation['eta_s'])} until the generator is done with {generation['detail']}"
