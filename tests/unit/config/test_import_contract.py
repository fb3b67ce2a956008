"""What import-linter is told to watch is all of the shared library."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_every_module_of_the_shared_library_is_kept_from_the_services() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (contract,) = (
        one
        for one in settings["tool"]["importlinter"]["contracts"]
        if one["name"] == "the shared library knows no service"
    )
    there = {path.stem for path in (ROOT / "shared" / "jupiter").iterdir() if not path.name.startswith(("_", "."))}
    assert set(contract["source_modules"]) == {f"jupiter.{name}" for name in there}
