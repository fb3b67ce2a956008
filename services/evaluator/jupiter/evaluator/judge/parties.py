"""The two models that are compared, as far as a judge must not be one of them.

Owns: by what a model is recognised: the digests of its weight files, and the names it is recorded under.
Does not know: judges.

Equal bytes are the same model; that much is certain. The same weights saved anew in another dtype or cut into other
files have other digests, and an endpoint may serve a contestant under any name: neither is found out here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from jupiter.records import Manifest

__all__ = ["Party", "Role", "party_of", "plain_name"]

Role = Literal["candidate", "generator"]

_STATE = "training_state"


@dataclass(frozen=True, kw_only=True)
class Party:
    """One side of the comparison."""

    role: Role
    names: frozenset[str]
    """As `plain_name` writes them."""
    weights: frozenset[str]
    """sha256 of each of its weight files."""


def party_of(role: Role, manifest: Manifest) -> Party:
    """Return how a checkpoint or generator version is recognised, from its manifest."""
    details = manifest.details
    recorded = [manifest.work_id, details.get("name")]
    if details.get("version"):
        recorded.append(f"generator_v{details['version']}")
    weights = {
        ref.sha256 for ref in manifest.files if ref.name.endswith(".safetensors") and not ref.name.startswith(_STATE)
    }
    return Party(
        role=role, names=frozenset(plain_name(str(name)) for name in recorded if name), weights=frozenset(weights)
    )


def plain_name(name: str) -> str:
    """Return the last part of a path or repository name, in lower case: `HuggingFaceTB/SmolLM2` is `smollm2`."""
    return PurePosixPath(name.strip()).name.casefold()
