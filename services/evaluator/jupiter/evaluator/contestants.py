"""The two models of an evaluation as files on this machine.

Owns: fetching them verified, and what is kept of them. Does not know: how a model is loaded or scored.

The generator of the day is met again at every evaluation, so its files stay; a candidate's go when it is scored.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from jupiter import manifests
from jupiter.blobs import Blobs
from jupiter.manifests import Committed
from jupiter.records import BlobRef, Manifest, digest_of

__all__ = ["Contestants", "weights_sha256"]

MODEL_FOLDER = "model/"
NOT_OF_THE_MODEL = ("training_state", "golden.json")
GENERATORS_KEPT = 2
"""The current one, and the one a rollback goes back to."""


def weights_sha256(manifest: Manifest) -> str:
    """Return one digest over a model's weight files: two models with the same are one.

    File names do not count, for a checkpoint keeps its model in a folder and a base model does not.
    """
    return digest_of(*sorted(ref.sha256 for ref in _model_files(manifest) if ref.name.endswith(".safetensors")))


class Contestants:
    """Model directories under `<data_dir>/evaluator`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._remove_abandoned()

    @contextmanager
    def candidate(self, blobs: Blobs, checkpoint: Committed) -> Iterator[Path]:
        """Fetch a checkpoint's model; it is removed after the block. Raises NotFound, IntegrityError."""
        with tempfile.TemporaryDirectory(
            prefix=f"candidate-{os.getpid()}-", dir=self._directory, ignore_cleanup_errors=True
        ) as name:
            yield _fetch(blobs, checkpoint.manifest, Path(name))

    def generator(self, blobs: Blobs, version: Committed) -> Path:
        """Return the directory of a generator version, fetching it the first time. Raises NotFound, IntegrityError."""
        kept = self._directory / f"generator-{version.sha256[:32]}"
        if not kept.is_dir():
            partial = Path(tempfile.mkdtemp(prefix=f"candidate-{os.getpid()}-", dir=self._directory))
            model = _fetch(blobs, version.manifest, partial)
            with suppress(OSError):  # another evaluator of this machine was first: its files are the same
                model.rename(kept)
            shutil.rmtree(partial, ignore_errors=True)
        kept.touch()
        self._forget_old_generators()
        return kept

    def _forget_old_generators(self) -> None:
        known = sorted(self._directory.glob("generator-*"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in known[GENERATORS_KEPT:]:
            shutil.rmtree(path, ignore_errors=True)

    def _remove_abandoned(self) -> None:
        """Remove what processes left that were killed while they evaluated."""
        for path in self._directory.glob("candidate-*"):
            if not _is_alive(int(path.name.split("-")[1])):
                shutil.rmtree(path, ignore_errors=True)


def _is_alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _fetch(blobs: Blobs, manifest: Manifest, directory: Path) -> Path:
    """Download the model's files and return the folder that holds `config.json`."""
    names = tuple(ref.name for ref in _model_files(manifest))
    manifests.fetch(blobs, manifest, directory, names=names)
    in_folder = any(name.startswith(MODEL_FOLDER) for name in names)
    return directory / MODEL_FOLDER if in_folder else directory


def _model_files(manifest: Manifest) -> tuple[BlobRef, ...]:
    return tuple(ref for ref in manifest.files if not ref.name.startswith(NOT_OF_THE_MODEL))
