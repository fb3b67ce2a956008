"""The controller's part of the configuration.

Owns: reading the command line into the cluster's and the domain's settings, and where the API listens.
Does not know: the settings themselves (`jupiter.config.sections.ControllerSection` documents and bounds them).
"""

from __future__ import annotations

from collections.abc import Sequence

from jupiter.config import ClusterConfig
from jupiter.config.loading import config_from_arguments
from jupiter.config.sections import TelemetrySection

__all__ = ["api_section", "load"]


def load(arguments: Sequence[str] | None = None) -> ClusterConfig:
    """Parse the service's command line; a wrong setting is one line and exit 2."""
    return config_from_arguments("controller", arguments)


def api_section(config: ClusterConfig) -> TelemetrySection:
    """Return where the API listens, in the form that the shared HTTP server takes."""
    return config.telemetry.model_copy(update={"host": config.controller.host, "port": config.controller.port})
