"""Who may call the controller's API, as `controller.api_keys` says it.

Owns: reading that setting, and the rule that nobody else's machine gets in without a key.
Does not know: which scope a request needs (the controller).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from jupiter.config.sections import ControllerSection
from jupiter.errors import ConfigError

__all__ = ["SCOPES", "Caller", "Scope", "check_reachable", "read_keys"]

Scope = Literal["read", "operate", "admin"]
SCOPES: tuple[Scope, ...] = ("read", "operate", "admin")
"""Each may all that the ones before it may."""
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Caller:
    """One line of `controller.api_keys`."""

    name: str
    scope: Scope
    sha256: str


def read_keys(text: str) -> tuple[Caller, ...]:
    """Parse `controller.api_keys`. Raises ConfigError, which never repeats what stands there."""
    callers = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        parts = line.split()
        if len(parts) != 3 or parts[1] not in SCOPES or not _SHA256.fullmatch(parts[2]):
            raise ConfigError(
                f"controller.api_keys, line {number}: expected `name scope sha256` with a scope of "
                f"{', '.join(SCOPES)} and 64 hexadecimal digits"
            )
        callers.append(Caller(name=parts[0], scope=parts[1], sha256=parts[2]))
    return tuple(callers)


def check_reachable(section: ControllerSection) -> tuple[Caller, ...]:
    """Return the callers. Raises ConfigError where the whole network could promote without a key."""
    callers = read_keys(section.api_keys)
    if not callers and section.host not in LOOPBACK:
        raise ConfigError(
            f"controller.host {section.host} is reachable from other machines and controller.api_keys is empty: name "
            "a file with keys in JUPITER_CONTROLLER__API_KEYS_FILE (compose/make-secrets makes it), or listen on "
            "127.0.0.1"
        )
    return callers
