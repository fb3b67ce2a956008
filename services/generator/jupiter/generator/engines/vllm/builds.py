"""What a running engine was built for and cannot change: another version fits into it, or it does not.

Owns: the comparison. vLLM itself accepts fewer layers or another rope_theta without a word and then computes nonsense.
Does not know: engines. It allocates nothing: config.json and the headers of the weight files say it all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupiter.modeling import UnfitModel, inspect_files

__all__ = ["Build", "build_of", "differences"]

# Where the files came from and what saved them, not what is computed. The engine's own dtype is Jupiter's setting.
_NOT_COMPUTED = frozenset({"_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache"})
_NAMED_MAX = 3


@dataclass(frozen=True, kw_only=True)
class Build:
    """One model's architecture in every detail that an engine takes for granted."""

    config: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]
    tokenizer_sha256: str
    """The engine turns tokens into text, and finds the stop strings in it."""
    parameters: int


def build_of(directory: Path, *, tokenizer_sha256: str) -> Build:
    """Read the build that a model directory needs. Raises UnfitModel."""
    files = inspect_files(directory)
    try:
        config = json.loads((directory / "config.json").read_bytes())
    except (OSError, ValueError) as error:
        raise UnfitModel(f"{directory / 'config.json'} cannot be read: {error}") from error
    return Build(
        config={name: value for name, value in config.items() if name not in _NOT_COMPUTED},
        shapes=dict(files.shapes),
        tokenizer_sha256=tokenizer_sha256,
        parameters=files.parameters,
    )


def differences(running: Build, wanted: Build) -> list[str]:
    """Return why `wanted` cannot take the place of `running` in its engine; empty when it can."""
    found = [
        f"config.json's {name} is {wanted.config.get(name)!r} instead of {running.config.get(name)!r}"
        for name in sorted(running.config.keys() | wanted.config.keys())
        if running.config.get(name) != wanted.config.get(name)
    ]
    if running.shapes.keys() != wanted.shapes.keys():
        other = sorted(running.shapes.keys() ^ wanted.shapes.keys())
        found.append(f"the weights are others: {_some(other)}")
    reshaped = [
        f"{name} {shape} instead of {running.shapes[name]}"
        for name, shape in sorted(wanted.shapes.items())
        if name in running.shapes and shape != running.shapes[name]
    ]
    if reshaped:
        found.append(f"weights have other shapes: {_some(reshaped)}")
    if running.tokenizer_sha256 != wanted.tokenizer_sha256:
        found.append("the tokenizer is another one")
    return found


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED_MAX} more" if len(names) > _NAMED_MAX else ""
    return ", ".join(names[:_NAMED_MAX]) + more
