"""Keep freed memory in the process.

Owns: three settings of glibc's malloc. Does not know: what is allocated.

By default glibc maps each large tensor anew from the kernel and unmaps it when freed, thousands of times per step; the
first touch of every page is slow, most of all in virtual machines. Measured: docs/decisions/0007.
"""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_freed_memory"]

# From glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_MAX = -4

_TOP_PAD_BYTES = 64 << 20
_NEVER_TRIM = (1 << 31) - 1
"""The largest value of an int: 2 GiB may lie unused at the top of the heap."""


def keep_freed_memory() -> None:
    """Let malloc reuse large blocks; elsewhere than on glibc, do nothing."""
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, _NEVER_TRIM)
        mallopt(_M_TOP_PAD, _TOP_PAD_BYTES)
