"""The same model files on every rank, whichever disks they share.

Owns: finding out who lacks them, and sending them. Does not know: what the files mean.

A rank has the files when a directory holds exactly those that rank 0 has, byte for byte: all begin from the same model.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from jupiter.errors import IntegrityError
from jupiter.modeling.golden import file_digests
from jupiter.records import digest_of

__all__ = ["mirror"]

CHUNK_BYTES = 64 * 1024 * 1024


def mirror(directory: Path, *, home: Path, writes: bool) -> Path:
    """Return a directory of this machine with the files that rank 0 has in `directory`; all ranks call it.

    What is missing is sent and written below `home` by the ranks that `writes` chooses, one of each machine.
    """
    leads = distributed.get_rank() == 0
    plan: list[Any] = [None]
    if leads:
        plan = [{name: (sha256, (directory / name).stat().st_size) for name, sha256 in file_digests(directory).items()}]
    distributed.broadcast_object_list(plan, src=0)
    expected = {name: sha256 for name, (sha256, _) in plan[0].items()}
    copy = home / f"start-{digest_of(expected)[:16]}"
    found = next((place for place in (directory, copy) if _holds(place, expected)), None)
    if not _all_have(found is not None):
        target = copy.with_name(f"{copy.name}.{uuid.uuid4().hex[:8]}.arriving") if writes and found is None else None
        _send(directory if leads else None, plan[0], target=target)
        if target is not None:
            _put(target, copy, expected)
        distributed.barrier()
        found = found or (copy if _holds(copy, expected) else None)
    if found is None:
        raise IntegrityError(
            f"{copy} does not hold what rank 0 sent: is {home} on a disk of this machine, and not full?"
        )
    return found


def _put(arrived: Path, place: Path, expected: dict[str, str]) -> None:
    """Move what arrived to its place, unless another machine on the same disk was first."""
    if not _holds(place, expected):
        shutil.rmtree(place, ignore_errors=True)
    with suppress(OSError):
        arrived.rename(place)
    shutil.rmtree(arrived, ignore_errors=True)


def _holds(directory: Path, expected: dict[str, str]) -> bool:
    return directory.is_dir() and file_digests(directory) == expected


def _all_have(has: bool) -> bool:
    lacking = torch.tensor(0 if has else 1)
    distributed.all_reduce(lacking)
    return not int(lacking)


def _send(source: Path | None, plan: dict[str, tuple[str, int]], *, target: Path | None) -> None:
    """Send every file of `source`, which rank 0 has; a rank with a `target` writes them there."""
    if target is not None:
        target.mkdir(parents=True)
    for name, (_, size_bytes) in plan.items():
        reading = (source / name).open("rb") if source else None
        writing = (target / name).open("wb") if target else None
        for length in _lengths(size_bytes):
            chunk = torch.empty(length, dtype=torch.uint8)
            if reading:
                chunk = torch.frombuffer(bytearray(reading.read(length)), dtype=torch.uint8)
            distributed.broadcast(chunk, src=0)
            if writing:
                writing.write(chunk.numpy().tobytes())
        for stream in (reading, writing):
            if stream:
                stream.close()


def _lengths(size_bytes: int) -> Iterator[int]:
    for begin in range(0, size_bytes, CHUNK_BYTES):
        yield min(CHUNK_BYTES, size_bytes - begin)
