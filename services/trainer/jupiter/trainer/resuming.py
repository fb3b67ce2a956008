"""Where a trainer that starts takes up its run.

Owns: the choice among the newest whole checkpoint in the store, the snapshot on this disk, and a new beginning.
Does not know: how training goes on from there.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from jupiter.blobs import Blobs
from jupiter.errors import ConfigError, IntegrityError, NotFound
from jupiter.manifests import Committed
from jupiter.trainer import checkpoints
from jupiter.trainer.checkpoints import RunState
from jupiter.trainer.config import check_same_run
from jupiter.trainer.starting_point import StartingPoint

__all__ = ["Resumed", "find_state", "read_snapshot", "write_snapshot"]

log = logging.getLogger(__name__)

SNAPSHOT = "snapshot"

Resumed = tuple[RunState, dict[str, torch.Tensor]]


def find_state(
    blobs: Blobs, *, domain: str, directory: Path, start: StartingPoint, config: Mapping[str, Any]
) -> tuple[Resumed | None, Committed | None]:
    """Return the furthest whole state of the run, and its newest whole checkpoint.

    Raises ConfigError when the settings are not those that the run can go on with.
    """
    checkpoint, resumed = _newest_whole(blobs, domain=domain, run=config["run"], directory=directory)
    snapshot = read_snapshot(directory)
    if snapshot is not None and (resumed is None or snapshot[0].step > resumed[0].step):
        resumed = snapshot
    if resumed is None:
        return None, None
    state, tensors = resumed
    if state.base_manifest_sha256 != start.manifest_sha256:
        raise ConfigError(
            f"run {state.run!r} began from a model with digest {state.base_manifest_sha256[:16]}…, trainer.student now"
            f" names {start.manifest_sha256[:16]}…: set it back, or name a new run in trainer.run"
        )
    if changed := check_same_run(state.config, config):
        log.warning("run %s goes on with changed settings: %s", state.run, ", ".join(changed))
    return (state.model_copy(update={"config": dict(config)}), tensors), checkpoint


def _newest_whole(blobs: Blobs, *, domain: str, run: str, directory: Path) -> tuple[Committed | None, Resumed | None]:
    """Return the newest checkpoint whose training state is what its manifest says."""
    for committed in checkpoints.find_newest(blobs, domain=domain, run=run):
        with tempfile.TemporaryDirectory(prefix="resume-", dir=directory) as scratch:
            try:
                checkpoints.fetch_state(blobs, committed, Path(scratch))
            except (NotFound, IntegrityError) as error:
                log.error("checkpoint %s is damaged, trying the one before: %s", committed.key, error)  # noqa: TRY400
                continue
            return committed, checkpoints.read_state(Path(scratch))
    return None, None


def read_snapshot(directory: Path) -> Resumed | None:
    """Return the state that `write_snapshot` left on this disk, if any."""
    snapshot = directory / SNAPSHOT
    return checkpoints.read_state(snapshot) if snapshot.is_dir() else None


def write_snapshot(write: Callable[[Path], None], directory: Path) -> None:
    """Replace the snapshot by what `write(directory)` writes; a crash leaves the old one or none, never half of one."""
    arriving, leaving = directory / f"{SNAPSHOT}.arriving", directory / f"{SNAPSHOT}.leaving"
    for leftover in (arriving, leaving):
        shutil.rmtree(leftover, ignore_errors=True)
    write(arriving)
    if (directory / SNAPSHOT).exists():
        (directory / SNAPSHOT).rename(leaving)
    arriving.rename(directory / SNAPSHOT)
    shutil.rmtree(leaving, ignore_errors=True)
