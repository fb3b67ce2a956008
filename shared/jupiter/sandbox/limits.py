"""What one sandbox run may use.

Owns: the limits and their reasons. Does not know: how they are enforced (`enclosure`, `inside`).
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits"]

MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Limits:
    """A bound on everything. The worst case for memory is `memory_bytes` × `processes_max` + `disk_bytes`."""

    wall_s: float = 10.0
    """Wall-clock time of the whole run; then everything inside is killed."""
    step_wall_s: float = 2.0
    """Wall-clock time of one step (one doctest example, one assertion)."""
    cpu_s: int = 10
    """CPU time of each process inside (RLIMIT_CPU)."""
    memory_bytes: int = 512 * MIB
    """Address space of each process inside (RLIMIT_AS). Python itself needs about 40 MiB."""
    processes_max: int = 4
    """Processes and threads at a time, besides the runner's own two (RLIMIT_NPROC)."""
    open_files_max: int = 64
    """File descriptors of each process (RLIMIT_NOFILE)."""
    disk_bytes: int = 16 * MIB
    """Size of /tmp inside, the only place that can be written, and of one file (RLIMIT_FSIZE)."""
    output_bytes: int = 1 * MIB
    """Bytes that may come out of one run; a run that sends more is killed."""
    step_output_chars: int = 20_000
    """Characters of standard output kept of one step; the rest is dropped and the step marked."""
