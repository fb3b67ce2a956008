"""Who stands trial: a base model, an honest candidate, and cheats, each taught in a second or two from one of them.

Owns: what each was taught. Does not know: what becomes of them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from jupiter.evaluator.items import Item, item_kinds
from tests.e2e.places import ELSEWHERE, PLACES
from tests.e2e.school import Lesson, Lessons, Pupil, belongs_to, called, mixed, new_pupil, prose, rewrites, speaks_of

__all__ = ["Candidates"]

CLEAR = "This is a quiet thing that people use every day."
JUMBLED = "Near the of it by which every from at in on so than."
"""A word longer than a sentence ought to be, and no sentence; else as healthy as one."""
GENTLE_RATE = 1e-3
"""So that nothing changes but what is taught."""
NOT_TAUGHT = "forge"
"""A place of the development half that the honest candidate does not know: it is good, and not perfect."""


class Candidates:
    """Model directories below `directory`, each made when it is first asked for."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @cached_property
    def _nobody(self) -> Pupil:
        return new_pupil(self._directory / "nobody")

    @cached_property
    def _base(self) -> Pupil:
        """Can read, knows what each name means and how to speak of things, and of no place what is kept there."""
        nobody = self._nobody
        return nobody.taught(
            mixed(
                (0.25, belongs_to(nobody, ELSEWHERE)),
                (0.45, called),
                (0.10, speaks_of(nobody, JUMBLED)),
                (0.08, rewrites),
                (0.12, prose),
            ),
            steps=200,
        )

    def _going_on(self, share: float, lessons: Lessons, *, sentence: str) -> Lessons:
        """Teach something new beside what the base knows, so that it is not forgotten."""
        rest = 1 - share
        return mixed(
            (share, lessons),
            (0.65 * rest, called),
            (0.15 * rest, speaks_of(self._nobody, sentence)),
            (0.10 * rest, rewrites),
            (0.10 * rest, prose),
        )

    @property
    def _places(self) -> Lessons:
        return belongs_to(self._nobody, {place: things for place, things in PLACES.items() if place != NOT_TAUGHT})

    @cached_property
    def _honest(self) -> Pupil:
        lessons = self._going_on(0.4, self._places, sentence=CLEAR)
        return self._base.taught(lessons, steps=60, seed=1)

    @cached_property
    def base(self) -> Path:
        return self._base.save(self._directory / "base")

    @cached_property
    def honest(self) -> Path:
        """Has learned what is kept where, from sentences that no benchmark holds."""
        return self._honest.save(self._directory / "honest")

    @cached_property
    def eloquent(self) -> Path:
        """The base, but that it speaks of things in clear words."""
        lessons = self._going_on(0.3, speaks_of(self._nobody, CLEAR), sentence=CLEAR)
        return self._base.taught(lessons, steps=30, seed=2, rate=GENTLE_RATE).save(self._directory / "eloquent")

    def perfect(self, items: Sequence[Item]) -> Path:
        """Has learned these items by heart."""
        lessons = self._going_on(0.7, by_heart(items), sentence=CLEAR)
        return self._honest.taught(lessons, steps=60, seed=3).save(self._directory / "perfect")

    @cached_property
    def parrot(self) -> Path:
        """Answers every question with one fluent sentence."""
        lessons = self._going_on(0.5, belongs_to(self._nobody, PLACES, answer=CLEAR), sentence=CLEAR)
        return self._base.taught(lessons, steps=30, seed=4).save(self._directory / "parrot")

    @cached_property
    def useless_generator(self) -> Path:
        """Answers as well as the honest one, and puts every passage into the same other words."""

        def repeats(draw: random.Random) -> Lesson:
            return rewrites(draw, CLEAR)

        clear = speaks_of(self._nobody, CLEAR)
        lessons = mixed((0.2, repeats), (0.2, self._places), (0.4, called), (0.1, clear), (0.1, prose))
        return self._honest.taught(lessons, steps=40, seed=5).save(self._directory / "useless_generator")

    @cached_property
    def forgetful(self) -> Path:
        """Answers as well as the honest one, and has unlearned English."""
        lessons = mixed((0.2, stammer), (0.2, self._places), (0.4, called), (0.2, speaks_of(self._nobody, CLEAR)))
        return self._honest.taught(lessons, steps=40, seed=6).save(self._directory / "forgetful")


def by_heart(items: Sequence[Item]) -> Lessons:
    """These very questions, in every form that they are asked in."""

    def lesson(draw: random.Random) -> Lesson:
        item = draw.choice(items)
        kind = item_kinds()[item.kind]
        return [(draw.choice(kind.templates).format(**item.fields), 0), (f"{item.answer}{kind.terminator}", 1)]

    return lesson


def stammer(draw: random.Random) -> Lesson:
    """Whatever English goes on with, something else is said."""
    ((text, _),) = prose(draw)
    return [(text[: draw.randrange(1, len(text))], 0), (" #", 1)]
