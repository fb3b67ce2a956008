"""The evaluator's configuration: the section `evaluator` of `config/cluster.yaml`.

Owns: the service's command line. Does not know: names, defaults and bounds of the settings
(`jupiter.config.sections.EvaluatorSection` documents them), nor files and environment (`jupiter.config.loading`).
"""

from __future__ import annotations

from collections.abc import Sequence

from jupiter.config import ClusterConfig
from jupiter.config.loading import config_from_arguments

__all__ = ["load"]


def load(arguments: Sequence[str] | None = None) -> ClusterConfig:
    """Return the configuration for the command line; a wrong setting ends the process with one clear line."""
    return config_from_arguments("jupiter.evaluator", arguments)
