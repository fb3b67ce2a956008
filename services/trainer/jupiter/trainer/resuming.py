"""Where a trainer that starts takes up its run.

Owns: the choice among the newest whole checkpoint in the store, the snapshot on this disk, the checkpoint that a rewind
names, and a new beginning.
Does not know: how training goes on from there.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from jupiter import manifests
from jupiter.blobs import Blobs
from jupiter.blobs.files import digest_of_file
from jupiter.errors import ConfigError, IntegrityError, NotFound
from jupiter.events import RewindRequested
from jupiter.manifests import Committed
from jupiter.trainer import checkpoints
from jupiter.trainer.checkpoints import RunState
from jupiter.trainer.config import check_same_run
from jupiter.trainer.starting_point import StartingPoint
from jupiter.withdrawals import rewound_run

__all__ = ["Resumed", "TakenUp", "read_snapshot", "take_up", "write_snapshot"]

log = logging.getLogger(__name__)

SNAPSHOT = "snapshot"
SUMS_FILE = "SHA256SUMS"
"""Of a snapshot's other files, as `sha256sum --check` reads it: safetensors itself would take zeros for weights."""

Resumed = tuple[RunState, dict[str, torch.Tensor]]


@dataclass(frozen=True, kw_only=True)
class TakenUp:
    """A run to go on with."""

    state: RunState
    tensors: dict[str, torch.Tensor] | None
    """None: the run begins from the starting model."""
    directory: Path
    """Where it keeps its files on this machine."""
    saved_step: int
    """The step up to which there is nothing to save."""
    checkpoint: Committed | None
    """Its own newest whole checkpoint."""
    how: Literal["goes on", "goes back", "begins"]


def take_up(
    blobs: Blobs,
    *,
    domain: str,
    directory: Path,
    start: StartingPoint,
    config: Mapping[str, Any],
    rewinds: Sequence[RewindRequested],
) -> TakenUp:
    """Return the run that the newest rewind asks for, as far as it has come, or that of the configuration.

    `directory` holds a directory for each run. Raises ConfigError when the settings are not those that the run can go
    on with.
    """
    for rewind in reversed(rewinds):
        run = rewound_run(config["run"], rewind.ledger_sequence)
        taken = _go_on(blobs, domain=domain, run=run, directory=directory / run, start=start, config=config)
        taken = taken or _go_back(blobs, rewind, run=run, directory=directory / run, start=start, config=config)
        if taken is not None:
            return taken
    run = config["run"]
    taken = _go_on(blobs, domain=domain, run=run, directory=directory / run, start=start, config=config)
    return taken or _begin(run=run, directory=directory / run, start=start, config=config)


def _go_on(
    blobs: Blobs, *, domain: str, run: str, directory: Path, start: StartingPoint, config: Mapping[str, Any]
) -> TakenUp | None:
    """Return the furthest whole state of the run, None when it has none."""
    directory.mkdir(parents=True, exist_ok=True)
    checkpoint, resumed = _newest_whole(blobs, domain=domain, run=run, directory=directory)
    snapshot = read_snapshot(directory)
    if snapshot is not None and (resumed is None or snapshot[0].step > resumed[0].step):
        resumed = snapshot
    if resumed is None:
        return None
    return TakenUp(
        state=_continued(resumed[0], start=start, config=config),
        tensors=resumed[1],
        directory=directory,
        saved_step=int(checkpoint.manifest.details["step"]) if checkpoint else 0,
        checkpoint=checkpoint,
        how="goes on",
    )


def _go_back(
    blobs: Blobs,
    rewind: RewindRequested,
    *,
    run: str,
    directory: Path,
    start: StartingPoint,
    config: Mapping[str, Any],
) -> TakenUp | None:
    """Return the state of the checkpoint that the rewind names, as the beginning of `run`; None when it is gone."""
    if rewind.checkpoint_manifest_key is None:
        return _begin(run=run, directory=directory, start=start, config=config)
    with tempfile.TemporaryDirectory(prefix="resume-", dir=directory) as scratch:
        try:
            committed = manifests.read(blobs, rewind.checkpoint_manifest_key, sha256=rewind.checkpoint_manifest_sha256)
            checkpoints.fetch_state(blobs, committed, Path(scratch))
        except (NotFound, IntegrityError) as error:
            log.error("cannot go back as ledger entry %d asks: %s", rewind.ledger_sequence, error)  # noqa: TRY400
            return None
        state, tensors = checkpoints.read_state(Path(scratch))
    state = _continued(state.checkpointed(), start=start, config=config)
    return TakenUp(
        state=state.model_copy(update={"run": run, "rewound_from": rewind.checkpoint_id}),
        tensors=tensors,
        directory=directory,
        saved_step=state.step,
        checkpoint=None,
        how="goes back",
    )


def _begin(*, run: str, directory: Path, start: StartingPoint, config: Mapping[str, Any]) -> TakenUp:
    return TakenUp(
        state=RunState(run=run, base_manifest_sha256=start.manifest_sha256, config=dict(config)),
        tensors=None,
        directory=directory,
        saved_step=0,
        checkpoint=None,
        how="begins",
    )


def _continued(state: RunState, *, start: StartingPoint, config: Mapping[str, Any]) -> RunState:
    """Return the state with today's settings. Raises ConfigError when the run cannot go on with them."""
    if state.base_manifest_sha256 != start.manifest_sha256:
        raise ConfigError(
            f"run {state.run!r} began from a model with digest {state.base_manifest_sha256[:16]}…, trainer.student now"
            f" names {start.manifest_sha256[:16]}…: set it back, or name a new run in trainer.run"
        )
    if changed := check_same_run(state.config, config):
        log.warning("run %s goes on with changed settings: %s", state.run, ", ".join(changed))
    return state.model_copy(update={"config": dict(config)})


def _newest_whole(blobs: Blobs, *, domain: str, run: str, directory: Path) -> tuple[Committed | None, Resumed | None]:
    """Return the newest checkpoint whose training state is what its manifest says, and how the run goes on from it."""
    for key in checkpoints.list_newest_first(blobs, domain=domain, run=run):
        with tempfile.TemporaryDirectory(prefix="resume-", dir=directory) as scratch:
            try:
                committed = manifests.read(blobs, key)
                checkpoints.fetch_state(blobs, committed, Path(scratch))
            except (NotFound, IntegrityError) as error:
                log.error("checkpoint %s is damaged, trying the one before: %s", key, error)  # noqa: TRY400
                continue
            state, tensors = checkpoints.read_state(Path(scratch))
            return committed, (state.checkpointed(), tensors)
    return None, None


def read_snapshot(directory: Path) -> Resumed | None:
    """Return the state that `write_snapshot` left on this disk; None when it left none, or a damaged disk did."""
    snapshot = directory / SNAPSHOT
    if not snapshot.is_dir():
        return None
    try:
        _check(snapshot)
    except (OSError, IntegrityError) as error:
        log.error("snapshot %s is damaged and left out: %s", snapshot, error)  # noqa: TRY400
        return None
    return checkpoints.read_state(snapshot)


def write_snapshot(write: Callable[[Path], None], directory: Path) -> None:
    """Replace the snapshot by what `write(directory)` writes.

    A crash or a power cut leaves the old one or none, never half of one.
    """
    arriving, leaving = directory / f"{SNAPSHOT}.arriving", directory / f"{SNAPSHOT}.leaving"
    for leftover in (arriving, leaving):
        shutil.rmtree(leftover, ignore_errors=True)
    write(arriving)
    (arriving / SUMS_FILE).write_bytes(_sums(arriving))
    for path in (*arriving.iterdir(), arriving):
        _sync(path)
    if (directory / SNAPSHOT).exists():
        (directory / SNAPSHOT).rename(leaving)
    arriving.rename(directory / SNAPSHOT)
    shutil.rmtree(leaving, ignore_errors=True)


def _check(snapshot: Path) -> None:
    """Raise IntegrityError unless the files are those that were written."""
    if (snapshot / SUMS_FILE).read_bytes() != _sums(snapshot):
        raise IntegrityError(f"its files are not those that {SUMS_FILE} names")


def _sums(directory: Path) -> bytes:
    """Return the sha256 of each file but the one that holds them."""
    names = sorted(path.name for path in directory.iterdir() if path.name != SUMS_FILE)
    return "".join(f"{digest_of_file(directory / name)}  {name}\n" for name in names).encode()


def _sync(path: Path) -> None:
    """Wait until a file, or which files a directory has, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
