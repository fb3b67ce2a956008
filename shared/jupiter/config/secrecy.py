"""What of a configuration may be shown to people: all but the fields that are marked with `repr=False`.

Owns: reading that mark. Does not know: which settings are secret (`sections`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

__all__ = ["may_be_repeated", "without_secrets"]

HIDDEN = "(set)"


def without_secrets(section: BaseModel) -> dict[str, Any]:
    """Return the section as JSON values, with `(set)` in place of every secret that there is."""
    shown = section.model_dump(mode="json")
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            shown[name] = without_secrets(value)
        elif value and not field.repr:
            shown[name] = HIDDEN
    return shown


def may_be_repeated(model: type[BaseModel], place: Sequence[int | str]) -> bool:
    """Say whether a message may repeat what stands at `place`: no secret, nor a section, which may hold one."""
    name, *below = place
    field = model.model_fields.get(str(name))
    if field is None:
        return True
    if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
        return bool(below) and may_be_repeated(field.annotation, below)
    return bool(field.repr)
