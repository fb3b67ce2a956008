"""Wrong answers that are plausible: from the same domain, one of them from the same container.

Owns: drawing them. Does not know: how they are scored.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from jupiter.evaluator.items.titles import container_and_name, gives_away

__all__ = ["title_distractors"]


def title_distractors(title: str, text: str, titles: Sequence[str], rng: random.Random, *, count: int = 3) -> list[str]:
    """Return `count` titles other than `title`, none of which the text gives away; fewer where there are none."""
    container, name = container_and_name(title)

    def usable(other: str) -> bool:
        return other != title and container_and_name(other)[1].lower() != name.lower() and not gives_away(text, other)

    siblings = [other for other in titles if container_and_name(other)[0] == container and usable(other)]
    chosen = [rng.choice(siblings)] if siblings else []
    for other in rng.sample(list(titles), min(len(titles), 40)):
        if len(chosen) == count:
            break
        if container_and_name(other)[0] != container and other not in chosen and usable(other):
            chosen.append(other)
    return chosen if len(chosen) == count else []
