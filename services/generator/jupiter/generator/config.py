"""The generator's configuration: the section `generator` of `config/cluster.yaml`.

Owns: the service's command line and the settings derived from others. Does not know: names, defaults and bounds
(`jupiter.config.sections.GeneratorSection` documents them), nor files and environment (`jupiter.config.loading`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jupiter.config import ClusterConfig
from jupiter.config.loading import config_from_arguments

__all__ = ["base_model_cache", "load", "versions_directory"]


def load(arguments: Sequence[str] | None = None) -> ClusterConfig:
    """Return the configuration for the command line; a wrong setting ends the process with one clear line."""
    return config_from_arguments("jupiter.generator", arguments)


def versions_directory(config: ClusterConfig) -> Path:
    """Return where `generator_v<n>` and `current` lie."""
    return config.data_dir / config.generator.models_dir


def base_model_cache(config: ClusterConfig) -> Path:
    """Return where converted base models lie; several deployments of one data_dir share them."""
    return config.data_dir / "cache" / "base_models"
