"""What the trainer is told, and which of it may change while a run goes on.

Owns: the command line, and the identity of a run. Does not know: torch. Imported before it, so that `--help` and a
wrong setting answer at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jupiter.config import ClusterConfig
from jupiter.config.loading import config_from_arguments
from jupiter.config.sections import TrainerSection
from jupiter.errors import ConfigError

__all__ = ["check_same_run", "load", "recorded"]

_OF_AN_ADAPTER = ("adapter_rank", "adapter_alpha", "adapter_targets")

# What decides the order and the text of the samples, and which weights learn: a run that resumed with others would
# train some samples twice, some never, or other weights than it has trained so far.
_FIXED_IN_A_RUN = (
    "student",
    "sample_format",
    "tokens_per_step",
    "sequence_length",
    "passes_per_shard",
    "pass_spacing_shards",
    "seed",
    "control",
    "adapter",
    *_OF_AN_ADAPTER,
)


def load(arguments: list[str] | None = None) -> ClusterConfig:
    """Return the configuration for the command line. Raises ConfigError."""
    return config_from_arguments("jupiter.trainer", arguments)


def recorded(settings: TrainerSection, *, eval_every_steps: int) -> dict[str, Any]:
    """Return the resolved settings as they stand in every checkpoint of the run."""
    return {**settings.model_dump(mode="json"), "eval_every_steps": eval_every_steps}


def check_same_run(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the settings that differ and may. Raises ConfigError for one that a run cannot change."""
    before = {"adapter": "none", **before}  # of a run that is older than adapters
    changed = tuple(sorted(key for key in now if before.get(key) != now[key]))
    for key in changed:
        if key in _FIXED_IN_A_RUN and (key not in _OF_AN_ADAPTER or now["adapter"] != "none"):
            raise ConfigError(
                f"trainer.{key} is {now[key]!r}, but run {now['run']!r} was begun with {before.get(key)!r}: "
                "set it back, or name a new run in trainer.run"
            )
    return changed
