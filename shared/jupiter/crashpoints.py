"""Where the crash tests kill a service: right after each step of the commit rule.

Owns: the four names `blobs`, `manifest`, `event`, `ack`. Without `JUPITER_CRASH_AFTER` it does nothing.

`JUPITER_CRASH_AFTER=manifest` kills this process by SIGKILL the first time the step is reached;
`JUPITER_CRASH_MARKER=<path>` is created just before, so that the restarted process does not die again.
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
    if os.environ.get("JUPITER_CRASH_AFTER") != step:
        return
    marker = os.environ.get("JUPITER_CRASH_MARKER")
    if marker is None or Path(marker).exists():
        return
    Path(marker).touch()
    os.kill(os.getpid(), signal.SIGKILL)
