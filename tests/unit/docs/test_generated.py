"""The generated documents are what the code says, and the AsyncAPI file refers to nothing that is missing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from jupiter.docs import outdated
from jupiter.docs.asyncapi import asyncapi_yaml
from jupiter.events import event_types

ROOT = Path(__file__).parents[3]


def test_the_generated_documents_are_up_to_date() -> None:
    assert outdated(ROOT) == [], "run `make docs`"


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "$ref":
                yield inner
            else:
                yield from references(inner)
    if isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_asyncapi_is_complete() -> None:
    document = yaml.safe_load(asyncapi_yaml())
    assert set(document["components"]["messages"]) == {cls.__name__ for cls in event_types().values()} | {
        "PublishedDocument"
    }
    found = list(references(document))
    assert found
    for reference in found:
        at = document
        for name in reference.removeprefix("#/").split("/"):
            at = at[name]
