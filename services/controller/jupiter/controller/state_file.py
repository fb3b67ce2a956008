"""`pipeline_state.json`: the progress as one small file, for scripts and plots (the customer's document shows one).

Owns: its content and writing it whole. Does not know: anything that is not in the streams and the ledger; deleting the
file loses nothing.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jupiter.config import ClusterConfig
from jupiter.controller.ceiling import plateau_lines
from jupiter.controller.projection import Projection
from jupiter.ledger import LedgerEntry, current, flips, openings

__all__ = ["StateFile", "pipeline_state"]

log = logging.getLogger(__name__)


def pipeline_state(state: Projection, ledger: Sequence[LedgerEntry], config: ClusterConfig) -> dict[str, Any]:
    """Return the file's content. An epoch is an evaluation; scores are composites from 0 to 1."""
    live = current(ledger)
    alarm = state.open_alarm()
    confirmed = _confirmed(state, ledger)
    epochs = []
    for number, event in enumerate(state.evaluations.values(), start=1):
        verdict = state.verdicts.get(event.evaluation_id)
        epochs.append(
            {
                "epoch": number,
                "step": event.step,
                "score": event.candidate_score,
                "generator_score": event.generator_score,
                "difference": event.difference,
                "ci_low": event.ci_low,
                "ci_high": event.ci_high,
                "generator_version": event.generator_version,
                "decision": verdict.decision if verdict else None,
                "evaluation_id": event.evaluation_id,
                "confirmation": confirmed.get(event.evaluation_id),
            }
        )
    epoch_of = {epoch["evaluation_id"]: epoch["epoch"] for epoch in epochs}
    return {
        "domain": state.domain,
        "current_epoch": len(epochs),
        "scores": [epoch["score"] for epoch in epochs],
        "epochs": epochs,
        "generator_version": live.version if live else None,
        "improvement_threshold": config.self_improvement.improvement_threshold,
        "promotions": [
            {
                "version": entry.version,
                "previous_version": entry.previous_version,
                "action": entry.action,
                "epoch": epoch_of.get(entry.evaluation_id or ""),
                "time": entry.time,
                "actor": entry.actor,
                "reason": entry.reason,
            }
            for entry in flips(ledger)
            if entry.action != "registered"
        ],
        "diversity_alarm": list(alarm.alarms) if alarm else None,
        "plateau": list(plateau_lines(state, ledger, config)),
    }


def _confirmed(state: Projection, ledger: Sequence[LedgerEntry]) -> dict[str, Any]:
    """Return, by evaluation, what the sealed half said of it."""
    found = {}
    for entry in openings(ledger):
        event = state.confirmations.get((entry.evaluation_id or "", entry.opening or 0))
        if event is not None:
            shown = {"opening", "items", "candidate_score", "generator_score", "difference"}
            found[event.evaluation_id] = event.model_dump(include=shown)
    return found


class StateFile:
    """Writes the state to `controller.state_file` and into `data_dir`, when it has changed."""

    def __init__(self, config: ClusterConfig) -> None:
        self._config = config
        self._paths = dict.fromkeys((config.controller.state_file, config.data_dir / "pipeline_state.json"))
        self._written: dict[Path, bytes] = {}
        self._failed: set[Path] = set()
        """What could not be written the last time: that is logged once."""

    def write(self, state: Projection, ledger: Sequence[LedgerEntry]) -> None:
        """Replace the files whole: a reader sees the old state or the new one.

        One that cannot be written is tried again at every round, and holds nothing up: nothing is read from it.
        """
        data = json.dumps(pipeline_state(state, ledger, self._config), indent=2, ensure_ascii=False).encode()
        for path in self._paths:
            if self._written.get(path) == data:
                continue
            try:
                _replace(path, data)
            except OSError as error:
                if path not in self._failed:
                    log.warning("the state file %s cannot be written: %s; see controller.state_file", path, error)
                self._failed.add(path)
            else:
                self._failed.discard(path)
                self._written[path] = data


def _replace(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
