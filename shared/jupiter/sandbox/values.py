"""Plain values on their way out of the sandbox.

Owns: decoding, and equality as an `assert a == b` means it. `inside.encode` is the other half.
Does not know: any class but the builtin plain ones, so no `__eq__` of the code under test is ever called.
"""

from __future__ import annotations

import ast
from typing import Any, TypeAlias

__all__ = ["Plain", "decode", "equal"]

Plain: TypeAlias = (
    "bool | int | float | complex | str | bytes | list[Any] | tuple[Any, ...] | dict[Any, Any] | set[Any] "
    "| frozenset[Any] | None"
)

_DEPTH_MAX = 20


def decode(encoded: Any, depth: int = 0) -> Plain:
    """Return the value of `[tag, content]`. Raises ValueError or TypeError on anything else."""
    if depth > _DEPTH_MAX or not isinstance(encoded, list) or len(encoded) != 2:
        raise ValueError("not an encoded value")
    tag, content = encoded
    if tag in ("none", "bool", "int", "float", "complex", "str", "bytes"):
        return _decode_atom(tag, content)
    if tag == "dict":
        return {_hashable(decode(key, depth + 1)): decode(value, depth + 1) for key, value in content}
    items = [decode(item, depth + 1) for item in content]
    if tag == "list":
        return items
    if tag == "tuple":
        return tuple(items)
    if tag in ("set", "frozenset"):
        members = frozenset(_hashable(item) for item in items)
        return members if tag == "frozenset" else set(members)
    raise ValueError(f"unknown tag {tag!r}")


def _decode_atom(tag: str, content: Any) -> Plain:
    if tag == "none":
        return None
    if tag == "bool":
        return bool(content)
    if not isinstance(content, str):
        raise TypeError("an atom's content is text")
    if tag == "str":
        return content
    if tag == "bytes":
        return bytes.fromhex(content)
    if tag == "int":
        return int(content, 16)
    if tag == "complex":
        return complex(content)
    return float.fromhex(content)


def _hashable(value: Plain) -> Any:
    hash(value)
    return value


def equal(seen: Plain, expected: Plain) -> bool:
    """Return `seen == expected` over decoded plain values; NaN equals NaN, which no assertion could state."""
    return seen == expected or (seen != seen and expected != expected)


def literal(source: str) -> Plain:
    """Return the value of a literal expression. Raises ValueError when it is none."""
    try:
        value: Plain = ast.literal_eval(source)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError(f"not a literal: {source!r}") from error
    return value
