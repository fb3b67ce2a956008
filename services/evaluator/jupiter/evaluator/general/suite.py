"""The general suite as data: facts to complete, prose and code, read from the files beside this one.

Owns: the items, the suite's name and digest, and which of its texts must not be trained on.
Does not know: models (`examining`) nor what a loss means (the gate).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import yaml
from pydantic import Field

from jupiter.evaluator.unscored import Unscored
from jupiter.records import Record, digest_of
from jupiter.reports import General, GeneralItem

__all__ = [
    "SUITE",
    "Cloze",
    "Passage",
    "forbidden_texts",
    "general_items",
    "general_of",
    "general_total",
    "suite_digest",
]

SUITE = "jupiter-general 1"
Topic = Literal["science", "geography", "history", "everyday", "language", "arithmetic"]
Slug = Field(pattern=r"^[a-z0-9-]+$")


class Cloze(Record):
    """A true sentence without its ending, and four endings. A space stands between."""

    kind: Literal["knowledge"] = "knowledge"
    id: str = Slug
    topic: Topic
    start: str
    right: str
    wrong: tuple[str, str, str]

    @property
    def item_id(self) -> str:
        return f"{self.kind}-{self.id}"

    @property
    def scored_bytes(self) -> int:
        """Return 1: the figure is right or wrong, whatever the length."""
        return 1

    @property
    def options(self) -> tuple[str, ...]:
        """Return what may follow the beginning, the right one first."""
        return tuple(f" {ending}" for ending in (self.right, *self.wrong))

    @property
    def forbidden(self) -> str:
        return f"{self.start} {self.right}"


class Passage(Record):
    """A text whose bits per byte are measured, given its first word."""

    kind: Literal["text", "code"]
    id: str = Slug
    text: str
    checks: tuple[str, ...] = ()
    """For code: expressions that are true of it."""

    @property
    def item_id(self) -> str:
        return f"{self.kind}-{self.id}"

    @property
    def parts(self) -> tuple[str, str]:
        """Return the first word, which is given, and the rest, which is measured.

        A model without a begin token says nothing of a first word; with one, it says little about the model.
        """
        end = re.match(r"\S+", self.text)
        assert end is not None, "a passage begins with a word"  # noqa: S101 — our own file
        return self.text[: end.end()], self.text[end.end() :]

    @property
    def scored_bytes(self) -> int:
        return len(self.parts[1].encode())

    @property
    def forbidden(self) -> str:
        return self.text


@cache
def general_items() -> tuple[Cloze | Passage, ...]:
    """Return every item, in the order of the files."""
    facts = [Cloze(**entry) for entry in _read("knowledge")]
    prose = [Passage(kind="text", **_stripped(entry)) for entry in _read("text")]
    code = [Passage(kind="code", **_stripped(entry)) for entry in _read("code")]
    return (*facts, *prose, *code)


def _read(name: str) -> list[dict[str, Any]]:
    loaded: list[dict[str, Any]] = yaml.safe_load((files(__package__) / "data" / f"{name}.yaml").read_text("utf-8"))
    return loaded


def _stripped(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A YAML block ends with a new line, which is not part of the text."""
    return {**entry, "text": entry["text"].strip()}


def general_total() -> int:
    """Return how often `examine` reports an item done."""
    return len(general_items())


@cache
def suite_digest() -> str:
    """Return the digest over the name and everything that is asked; reports of other items are not comparable."""
    return digest_of(SUITE, [item.model_dump(mode="json", exclude={"checks"}) for item in general_items()])


def forbidden_texts() -> tuple[tuple[str, ...], ...]:
    """Return the texts of each item that no training sample may hold."""
    return tuple((item.forbidden,) for item in general_items())


def general_of(candidate: Mapping[str, float], generator: Mapping[str, float]) -> General:
    """Put both models' figures, as `examine` returned them, side by side. Raises Unscored when one lacks an item."""
    wanted = {item.item_id for item in general_items()}
    for who, figures in (("candidate", candidate), ("generator", generator)):
        if figures.keys() != wanted:
            odd = sorted(figures.keys() ^ wanted)
            raise Unscored(
                f"the {who} was scored on other items than those of {SUITE}: {len(odd)} differ, such as {odd[0]}"
            )
    return General(
        suite=SUITE,
        suite_digest=suite_digest(),
        items=tuple(
            GeneralItem(
                item_id=item.item_id,
                kind=item.kind,
                bytes=item.scored_bytes,
                candidate=candidate[item.item_id],
                generator=generator[item.item_id],
            )
            for item in general_items()
        ),
    )
