"""The versions on this machine's disk: `generator_v1/ generator_v2/ … current -> generator_v2`.

Owns: fetching a version beside the others, the link, removing old ones, and lending a disk to models that are none.
Does not know: what is loaded in memory.

Each `generator_v<n>` is a model in Hugging Face layout with its golden.json and manifest.json. It appears whole, by
rename. Several generators on one machine share the directory.
"""

from __future__ import annotations

import re
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from jupiter import manifests
from jupiter.blobs import Blobs
from jupiter.errors import IntegrityError
from jupiter.generator.importing import MODEL_PREFIX
from jupiter.manifests import Committed
from jupiter.modeling import GOLDEN_FILE
from jupiter.records import canonical_json

__all__ = ["Versions"]

_MANIFEST = "manifest.json"
_LINK = "current"
_NAME = re.compile(r"^generator_v(\d+)$")
_MODEL_BYTES_MAX = 1 << 40
_LEFTOVER_S = 24 * 3600.0


class Versions:
    """The directory `generators/`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._sweep()

    def path(self, version: int) -> Path:
        return self._directory / f"generator_v{version}"

    def has(self, version: int, committed: Committed) -> bool:
        """Say whether `version` was fetched before; what became of its files since, nobody has looked."""
        return _same(self.path(version) / _MANIFEST, canonical_json(committed.manifest))

    def fetch(self, blobs: Blobs, version: int, committed: Committed) -> Path:
        """Return the directory of `version`, downloaded and checked unless it is there already.

        Raises NotFound or IntegrityError when the store does not hold what the manifest says.
        """
        target = self.path(version)
        if self.has(version, committed):
            return target
        with self._arriving(blobs, committed) as model:
            (model / _MANIFEST).write_bytes(canonical_json(committed.manifest))
            self._replace(target, model)
        return target

    @contextmanager
    def borrow(self, blobs: Blobs, committed: Committed) -> Iterator[Path]:
        """Have the model of a checkpoint on disk during the block: it is no version, and leaves nothing behind.

        Raises NotFound or IntegrityError when the store does not hold what the manifest says.
        """
        with self._arriving(blobs, committed) as model:
            yield model

    def discard(self, version: int) -> None:
        """Remove a version that failed, so that the next try fetches it anew."""
        doomed = self._directory / f".discarded-{uuid.uuid4().hex}"
        try:
            self.path(version).rename(doomed)
        except FileNotFoundError:
            return
        shutil.rmtree(doomed, ignore_errors=True)

    def point_current(self, version: int) -> None:
        """Swap the link `current` by rename: a reader sees the old version or the new one, never none."""
        arriving = self._directory / f".{_LINK}-{uuid.uuid4().hex}"
        arriving.symlink_to(self.path(version).name)
        arriving.replace(self._directory / _LINK)

    def prune(self, *, keep: Iterable[int], versions_max: int) -> list[int]:
        """Remove the lowest versions beyond `versions_max`, never one of `keep`; they can be fetched again."""
        kept = set(keep)
        present = sorted(int(match[1]) for path in self._directory.iterdir() if (match := _NAME.match(path.name)))
        spare = [version for version in present if version not in kept]
        removed = spare[: max(0, len(present) - versions_max)]
        for version in removed:
            self.discard(version)
        return removed

    @contextmanager
    def _arriving(self, blobs: Blobs, committed: Committed) -> Iterator[Path]:
        """Download and check a model with its golden.json; what still lies there at the end is removed."""
        names = tuple(
            ref.name for ref in committed.manifest.files if ref.name.startswith(MODEL_PREFIX) or ref.name == GOLDEN_FILE
        )
        _check_names(committed, names)
        arriving = self._directory / f".arriving-{uuid.uuid4().hex}"
        try:
            manifests.fetch(blobs, committed.manifest, arriving, names=names)
            model = arriving / MODEL_PREFIX
            (arriving / GOLDEN_FILE).rename(model / GOLDEN_FILE)
            yield model
        finally:
            shutil.rmtree(arriving, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove what a killed process left unfinished; what is recent may be another process at work."""
        for path in self._directory.glob(".*-*"):
            with suppress(FileNotFoundError):
                if time.time() - path.lstat().st_mtime > _LEFTOVER_S:
                    if path.is_dir() and not path.is_symlink():
                        shutil.rmtree(path, ignore_errors=True)
                    else:
                        path.unlink()

    def _replace(self, target: Path, arrived: Path) -> None:
        """Put `arrived` in the place of whatever stood there: a version of another store, or a damaged one."""
        if target.exists():
            doomed = self._directory / f".discarded-{uuid.uuid4().hex}"
            target.rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)
        arrived.rename(target)


def _same(path: Path, data: bytes) -> bool:
    try:
        return path.read_bytes() == data
    except OSError:
        return False


def _check_names(committed: Committed, names: tuple[str, ...]) -> None:
    """Refuse a manifest whose names leave the directory, that is too large, or that lacks what a generator needs."""
    for name in names:
        plain = name.removeprefix(MODEL_PREFIX)
        if plain != Path(plain).name or plain in ("", ".", ".."):
            raise IntegrityError(f"{committed.key} names the file {name!r}, which would lie outside of the version")
    missing = {GOLDEN_FILE, f"{MODEL_PREFIX}config.json", f"{MODEL_PREFIX}tokenizer.json"} - set(names)
    if missing:
        raise IntegrityError(f"{committed.key} lacks {sorted(missing)}")
    size = sum(ref.size for ref in committed.manifest.files)
    if size > _MODEL_BYTES_MAX:
        raise IntegrityError(f"{committed.key} describes {size >> 30} GiB, the limit is {_MODEL_BYTES_MAX >> 30}")
