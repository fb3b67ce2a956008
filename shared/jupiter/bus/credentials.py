"""Who a NATS connection says it is, and whom it believes.

Owns: the nkey, TLS, and the inbox that no other user may read. Does not know: what the user may do (the server does).
"""

from __future__ import annotations

import re
import ssl
from typing import Any
from urllib.parse import urlsplit

from jupiter.config.sections import NatsSection
from jupiter.errors import ConfigError

__all__ = ["credentials_for", "inbox_prefix"]

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def credentials_for(section: NatsSection, *, client: str) -> dict[str, Any]:
    """Return what `nats.connect` needs of credentials. Raises ConfigError when there are none and there must be."""
    options: dict[str, Any] = {"inbox_prefix": inbox_prefix(client)}
    addresses = [url.strip() for url in section.url.split(",")]
    if section.nkey_seed:
        options["nkeys_seed_str"] = _checked(section.nkey_seed)
    else:
        beyond = [url for url in addresses if urlsplit(url).hostname not in LOOPBACK]
        if beyond:
            raise ConfigError(
                f"nats.nkey_seed is empty and {beyond[0]} is not on this machine: name the file with this service's "
                "seed in JUPITER_NATS__NKEY_SEED_FILE (compose/make-secrets makes one per service)"
            )
    if section.ca_file:
        options["tls"] = ssl.create_default_context(cafile=section.ca_file)
    elif any(url.startswith("tls://") for url in addresses):
        options["tls"] = ssl.create_default_context()
    return options


def inbox_prefix(client: str) -> str:
    """Return the subject under which answers come; the server's permissions keep other users out of it.

    `client` is `jupiter/<service>/<instance>`.
    """
    service = client.split("/")[1] if client.count("/") else client
    return f"_INBOX.{re.sub('[^A-Za-z0-9_-]', '-', service)}"


def _checked(seed: str) -> str:
    import nkeys

    try:
        nkeys.from_seed(bytearray(seed.strip().encode())).wipe()
    except Exception as error:
        raise ConfigError("nats.nkey_seed is no nkey seed: it must begin with SU and have 58 characters") from error
    return seed.strip()
