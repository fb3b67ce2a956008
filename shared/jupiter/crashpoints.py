"""Where the crash tests kill a service: right after each step of the commit rule.

Owns: the four names `blobs`, `manifest`, `event`, `ack`. Without `JUPITER_CRASH_AFTER` it does nothing.

`JUPITER_CRASH_AFTER=manifest` kills this process by SIGKILL the first time the step is reached; of several steps
(`blobs,ack`), each kills once. `JUPITER_CRASH_MARKER=<path>` gets the step's name, in a line of its own, just before,
so that the restarted process does not die of it again.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Literal

__all__ = ["Step", "reached"]

Step = Literal["blobs", "manifest", "event", "ack"]


def reached(step: Step) -> None:
    """Die here, once, if the environment of a crash test says so."""
    if step not in os.environ.get("JUPITER_CRASH_AFTER", "").split(","):
        return
    path = os.environ.get("JUPITER_CRASH_MARKER")
    if path is None:
        return
    marker = Path(path)
    if marker.exists() and step in marker.read_text().split():
        return
    with marker.open("a") as died:
        died.write(f"{step}\n")
    os.kill(os.getpid(), signal.SIGKILL)
