"""`docs/openapi.json` is what the code serves."""

from __future__ import annotations

import json
from pathlib import Path

from jupiter.controller.api import build_app

REPOSITORY = Path(__file__).parents[3]


def test_the_stored_description_is_up_to_date() -> None:
    stored = json.loads((REPOSITORY / "docs" / "openapi.json").read_text(encoding="utf-8"))
    assert stored == build_app(None).openapi(), "run `make docs`"


def test_every_route_is_described_and_says_how_it_fails() -> None:
    described = build_app(None).openapi()
    for path, operations in described["paths"].items():
        assert path.startswith("/v1/")
        for operation in operations.values():
            assert operation.get("description"), path
            assert {"409", "422", "503"} <= set(operation["responses"])
