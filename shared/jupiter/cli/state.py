"""Reading `pipeline_state.json`, the progress as one small file that the controller keeps.

Owns: telling a user what is wrong with the file. Does not know: how it is drawn.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jupiter.errors import JupiterError, NotFound

__all__ = ["read_state"]


def read_state(path: Path) -> dict[str, Any]:
    """Return the state. Raises NotFound when nothing ran yet, JupiterError when the file is no pipeline state."""
    try:
        state = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise NotFound(f"{path} does not exist: nothing ran here yet; start with `jupiter up`") from None
    except ValueError as error:
        raise JupiterError(f"{path} is not JSON: {error}") from None
    missing = {"domain", "epochs", "generator_version", "improvement_threshold", "promotions"} - set(state)
    if missing:
        raise JupiterError(f"{path} is no pipeline_state.json: it lacks {', '.join(sorted(missing))}")
    return dict(state)
