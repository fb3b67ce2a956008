"""Run a command that dies with the process that started it.

    python -I -S leash.py <signal> <parent pid> <command> <arguments>...

Owns: the one system call for it, made between fork and exec; a shim instead of `preexec_fn`, which may deadlock in a
process with threads. Does not know: what it runs. Outside Linux there is no such call and the command just runs.

It imports nothing of Jupiter, so that it costs 15 ms.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    death_signal, parent, *command = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != int(parent):
            sys.exit(f"{command[0]}: the process that wanted this is gone")
    os.execvp(command[0], command)  # noqa: S606 - replacing this process is the purpose


if __name__ == "__main__":
    main()
