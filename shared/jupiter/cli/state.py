"""Reading `pipeline_state.json`, the progress as one small file that the controller keeps.

Owns: what a reader needs of the file, and telling a user what is wrong with it. Does not know: how it is drawn.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jupiter.errors import JupiterError, NotFound

__all__ = ["read_state"]


class _Part(BaseModel):
    # The file holds more than is read here, and may come to hold more still.
    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)


class _Epoch(_Part):
    epoch: int
    score: float
    generator_score: float
    ci_low: float
    ci_high: float
    generator_version: int


class _Flip(_Part):
    action: Literal["promoted", "rolled_back"]
    version: int
    previous_version: int | None
    epoch: int | None


class _State(_Part):
    domain: str
    epochs: list[_Epoch]
    generator_version: int | None
    improvement_threshold: float = Field(ge=0)
    promotions: list[_Flip]


def read_state(path: Path) -> dict[str, Any]:
    """Return the state. Raises NotFound when nothing ran yet, JupiterError when the file is no pipeline state."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise NotFound(f"{path} does not exist: nothing ran here yet; start with `jupiter up`") from None
    except ValueError as error:
        raise JupiterError(f"{path} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise JupiterError(f"{path} is no pipeline_state.json: an object is needed, this is {value!r:.60}")
    try:
        return _State.model_validate(value).model_dump()
    except ValidationError as error:
        raise JupiterError(f"{path} is no pipeline_state.json: {_fault(error)}") from None


def _fault(error: ValidationError) -> str:
    """Return what is missing, else the first thing that is wrong, as one line."""
    problems = error.errors(include_url=False)
    missing = [".".join(map(str, problem["loc"])) for problem in problems if problem["type"] == "missing"]
    if missing:
        return f"it lacks {', '.join(missing)}"
    where = ".".join(map(str, problems[0]["loc"]))
    return f"{where}: {problems[0]['msg']} (it is {problems[0]['input']!r:.60})"
