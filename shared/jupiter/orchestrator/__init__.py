"""The library that users import: steer a running cycle from Python.

    from jupiter.orchestrator import SelfImprover

    improver = SelfImprover(config, trainer)
    await improver.rollback_generator()

Owns: the public names. Does not know: the controller's code; it speaks its HTTP API.
"""

from jupiter.orchestrator.hooks import OnPromotion, OnRollback
from jupiter.orchestrator.improver import SelfImprover

__all__ = ["OnPromotion", "OnRollback", "SelfImprover"]
