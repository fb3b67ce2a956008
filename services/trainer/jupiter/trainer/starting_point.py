"""What the student is made from.

Owns: finding the starting model and bringing its files here. Does not know: training.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from jupiter import keys, manifests
from jupiter.blobs import Blobs
from jupiter.errors import ConfigError, NotFound
from jupiter.modeling.golden import file_digests
from jupiter.records import digest_of

__all__ = ["MODEL_PREFIX", "StartingPoint", "find_starting_point"]

MODEL_PREFIX = "model/"
"""Names of model files in manifests begin so; those of a base model may lack it."""


@dataclass(frozen=True, kw_only=True)
class StartingPoint:
    """A model in Hugging Face layout, and the digest that tells it from any other."""

    directory: Path
    manifest_sha256: str
    """Of generator version 1's manifest; for a directory, the digest over its files' digests."""


def find_starting_point(blobs: Blobs, *, domain: str, student: str, directory: Path) -> StartingPoint:
    """Return the model that `trainer.student` names, fetched below `directory` if it lies in the store.

    Raises NotFound while generator version 1 is not registered yet, ConfigError for a directory that does not exist.
    """
    if student != "base":
        local = Path(student)
        if not local.is_dir():
            raise ConfigError(f"trainer.student is {student!r}: neither `base` nor a directory")
        return StartingPoint(directory=local, manifest_sha256=digest_of(file_digests(local)))
    committed = manifests.find(blobs, keys.generator_prefix(domain, 1))
    if committed is None:
        raise NotFound(f"generator version 1 of {domain} is not registered yet")
    target = directory / f"base-{committed.sha256[:16]}"
    if not target.exists():
        arriving = directory / "base.arriving"
        shutil.rmtree(arriving, ignore_errors=True)
        manifests.fetch(blobs, committed.manifest, arriving)
        prefixed = arriving / MODEL_PREFIX
        (prefixed if prefixed.is_dir() else arriving).rename(target)
        shutil.rmtree(arriving, ignore_errors=True)
    return StartingPoint(directory=target, manifest_sha256=committed.sha256)
