"""vLLM's processes end with the service that started them, however that one ended.

Owns: that one promise. Does not know: anything else. vLLM calls it in each of its processes, before it loads a model
(`vllm.general_plugins` in pyproject.toml). Before that, an engine whose service is gone gives up by itself: after five
minutes without a handshake, in vLLM 0.32.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from typing import Any

__all__ = ["end_with_parent"]


def end_with_parent() -> None:
    """Kill this process as soon as the one that spawned it is gone; nothing to do in the service itself."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_wait_for, args=(parent,), name="jupiter-leash", daemon=True).start()


def _wait_for(parent: Any) -> None:
    parent.join()
    os.kill(os.getpid(), signal.SIGKILL)
