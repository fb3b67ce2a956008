"""One enclosed process: started, fed, read within its bounds, and killed with everything it started.

Owns: the wall clock and the output cap. Does not know: what the output means.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO, Literal

__all__ = ["Execution", "execute"]

_READ_BYTES = 64 * 1024
_DIAGNOSTICS_BYTES = 16 * 1024


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How a process ended and what it sent. Its exit status proves nothing about the code inside."""

    ended: Literal["exited", "wall", "output"]
    returncode: int
    stdout: bytes
    stderr: bytes
    wall_s: float

    @property
    def reason(self) -> str:
        """Why it ended, for a person."""
        if self.ended == "wall":
            return f"killed at the wall-clock limit, after {self.wall_s:.1f} s"
        if self.ended == "output":
            return "killed at the output limit"
        return "its process ended early"


def execute(command: Sequence[str], *, stdin: bytes, wall_s: float, output_bytes: int) -> Execution:
    """Run `command` with an empty environment until it exits or reaches a bound; nothing of it outlives the call.

    Blocks: call it from a worker thread, which must outlive the call: bubblewrap dies with its parent thread.
    """
    started = time.monotonic()
    with _memory_file(stdin) as feed:
        process = subprocess.Popen(
            list(command),
            stdin=feed,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={},
            cwd="/",
            start_new_session=True,
        )
    try:
        ended, stdout, stderr = _read(process, deadline=started + wall_s, output_bytes=output_bytes)
    finally:
        _kill_group(process)
    return Execution(
        ended=ended, returncode=process.returncode, stdout=stdout, stderr=stderr, wall_s=time.monotonic() - started
    )


def _memory_file(data: bytes) -> BinaryIO:
    """Return a file that holds `data`: unlike a pipe, it needs no writer beside the reader."""
    file = os.fdopen(os.memfd_create("sandbox-job"), "w+b")
    file.write(data)
    file.seek(0)
    return file


def _read(
    process: subprocess.Popen[bytes], *, deadline: float, output_bytes: int
) -> tuple[Literal["exited", "wall", "output"], bytes, bytes]:
    """Collect both outputs until they close, the deadline passes or standard output is over its cap."""
    stdout, stderr = bytearray(), bytearray()
    with selectors.DefaultSelector() as selector:
        for stream, collected in ((process.stdout, stdout), (process.stderr, stderr)):
            if stream is not None:
                selector.register(stream, selectors.EVENT_READ, collected)
        while selector.get_map():
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return "wall", bytes(stdout), bytes(stderr)
            for key, _ in selector.select(left_s):
                piece = os.read(key.fd, _READ_BYTES)
                if not piece:
                    selector.unregister(key.fileobj)
                elif key.data is stdout:
                    stdout += piece
                elif len(stderr) < _DIAGNOSTICS_BYTES:
                    stderr += piece
            if len(stdout) > output_bytes:
                return "output", bytes(stdout[:output_bytes]), bytes(stderr)
    return "exited", bytes(stdout), bytes(stderr)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill the process group; what is inside dies with bubblewrap's first process (its pid namespace ends)."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()
