"""The diversity alarm as the curator knows it: a projection of `alarms.<domain>`.

Owns: whether an alarm is open, which one, and what share of real data that asks for.
Does not know: why it was raised (the controller's breaker), how a share is mixed (`mix`).

The log is read before every batch. Which alarm a shard was mixed under stands in its manifest, so a batch that is
delivered again after the alarm was cleared gives the shard that was committed, not another one.
"""

from __future__ import annotations

from jupiter.events import DiversityAlarmCleared, DiversityAlarmRaised

__all__ = ["Alarms"]


class Alarms:
    """See the module. Only `apply` changes it, in stream order."""

    def __init__(self) -> None:
        self.sequence = 0
        """The stream sequence of the last event read."""
        self.open: DiversityAlarmRaised | None = None

    def apply(self, event: DiversityAlarmRaised | DiversityAlarmCleared) -> None:
        """Take in the next event of the log."""
        self.open = event if isinstance(event, DiversityAlarmRaised) else None

    def real_ratio(self, configured: float, *, in_alarm: float) -> float:
        """Return the real share to aim at now; an alarm never lowers it."""
        return configured if self.open is None else max(configured, in_alarm)
