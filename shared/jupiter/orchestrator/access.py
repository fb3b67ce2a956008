"""With which key a client calls the controller's API.

Owns: the environment variable JUPITER_API_KEY. Does not know: what the key may do (the controller does).
"""

from __future__ import annotations

import os

from jupiter.errors import ConfigError

__all__ = ["key_header"]

VARIABLE = "JUPITER_API_KEY"


def key_header() -> dict[str, str]:
    """Return the header that carries the key, empty where none is set. Raises ConfigError for what is no key."""
    key = os.environ.get(VARIABLE, "").strip()
    if not key:
        return {}
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ConfigError(f"{VARIABLE} is no key: it must be one word of printable ASCII")
    return {"Authorization": f"Bearer {key}"}
