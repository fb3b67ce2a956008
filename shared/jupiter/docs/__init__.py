"""The documents that are generated from the code: `python -m jupiter.docs` (`make docs`) writes them.

Owns: which file comes from which function. Does not know: their content.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

__all__ = ["generators", "outdated"]


def generators() -> Mapping[Path, Callable[[], str]]:
    """Return what makes each generated file, by its path in the repository."""
    from jupiter.cli import reference as cli_reference
    from jupiter.config.reference import cluster_yaml
    from jupiter.docs.asyncapi import asyncapi_yaml
    from jupiter.docs.events import events_md
    from jupiter.docs.openapi import openapi_json

    return {
        Path("config/cluster.yaml"): cluster_yaml,
        Path("docs/events.md"): events_md,
        Path("docs/asyncapi.yaml"): asyncapi_yaml,
        Path("docs/cli.md"): cli_reference.render,
        Path("docs/openapi.json"): openapi_json,
    }


def outdated(root: Path) -> list[Path]:
    """Return the generated files below `root` that are not what the code says."""
    return [
        path
        for path, generate in generators().items()
        if not (root / path).exists() or (root / path).read_text(encoding="utf-8") != generate()
    ]
