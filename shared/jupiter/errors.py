"""The exception tree of Jupiter.

    JupiterError
    ├── ConfigError          a setting is wrong; the message names the key and the fix
    ├── Rejected             the input can never succeed: the message goes to the dead letters
    ├── Retry                the input may succeed later: the message is redelivered
    ├── IntegrityError       bytes do not match the digest they are addressed by
    ├── NotFound             an object, version or document that was named does not exist
    ├── Conflict             someone else committed first (a lost conditional create, a stale version)
    └── Unavailable          a server could not be reached within its time limit

A handler raises `Rejected` or `Retry`; the service loop alone turns them into term or nak.
"""

__all__ = [
    "ConfigError",
    "Conflict",
    "IntegrityError",
    "JupiterError",
    "NotFound",
    "Rejected",
    "Retry",
    "Unavailable",
]


class JupiterError(Exception):
    """Base of every error that Jupiter raises on purpose; its text is fit for a user."""


class ConfigError(JupiterError):
    """A setting is missing, unknown or out of range."""


class Rejected(JupiterError):
    """The message can never be handled; it goes to the dead letters with this reason."""


class Retry(JupiterError):
    """The message cannot be handled now; it is redelivered after `delay_s` seconds.

    `counts` False means that waiting is normal (a benchmark is not frozen yet) and no attempt is used up.
    """

    def __init__(self, reason: str, *, delay_s: float = 1.0, counts: bool = True) -> None:
        super().__init__(reason)
        self.delay_s = delay_s
        self.counts = counts


class IntegrityError(JupiterError):
    """The bytes read are not the bytes that were written."""


class NotFound(JupiterError):
    """The thing named does not exist."""


class Conflict(JupiterError):
    """Somebody else committed first."""


class Unavailable(JupiterError):
    """A server did not answer in time; the caller may try again."""
