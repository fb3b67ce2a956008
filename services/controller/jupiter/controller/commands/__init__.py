"""The commands that the controller adds to the command line.

Owns: their names and one-line helps; `jupiter.cli` reads this list and imports a command only when it is called.
Does not know: what a command does.
"""

from __future__ import annotations

__all__ = ["COMMANDS"]

COMMANDS: dict[str, tuple[str, str]] = {
    "gate": ("gate", "Try the gate on models whose difference is known."),
    "replay": ("replay", "Recompute a verdict offline from its record."),
}
