"""Made-up documents of a dozen groups: entries to train on, other wordings, examples and prose held out.

Small, so that the benchmark is built in seconds; of every kind that an item needs.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from jupiter.records import DocumentKind, PublishedDocument

__all__ = ["made_up_documents"]

SUBJECTS = ("river", "engine", "garden", "letter", "market", "window", "forest", "bridge", "candle", "mirror")
VERBS = ("measures", "paints", "collects", "repairs", "describes", "counts", "lifts", "hides", "follows", "warms")
STEMS = ("bak", "rov", "tin", "lam", "pes", "gur", "mol", "fes", "nav", "zor")
# Made-up terms, each in a few sentences only: what a cloze asks for.
TERMS = tuple(f"{stem}{middle}ing" for stem in STEMS for middle in ("al", "em", "or"))
PLACES = ("under the old harbour", "behind a quiet station", "near the northern gate", "inside every wooden box")
GROUPS = 14
ENTRIES = 4


def made_up_documents(seed: int = 0) -> Iterator[PublishedDocument]:
    """Yield the same documents every time."""
    draw = random.Random(seed)
    for number in range(GROUPS):
        group = f"pkg{number}"
        for entry in range(ENTRIES):
            title = f"{group}.zq{number}x{entry}"
            yield _document(_sentence(draw), group=group, split="training", kind="api", title=title)
            yield _document(f"{_sentence(draw)} {_sentence(draw)}", group=group, kind="api", title=title)
        sums = "".join(f">>> {number} + {n}\n{number + n}\n" for n in range(3)) + ">>> 7 * 7\n49\n"
        yield _document(sums, group=group, kind="example")
        paragraphs = ["  ".join(_sentence(draw) for _ in range(3)) for _ in range(8)]
        yield _document("\n\n".join(paragraphs), group=f"prose{number}")


def _document(
    text: str, *, group: str, split: str = "held_out", kind: DocumentKind = "text", title: str | None = None
) -> PublishedDocument:
    return PublishedDocument.model_validate(
        {"text": text, "source": f"urn:test:{group}", "group": group, "split": split, "kind": kind, "title": title}
    )


def _sentence(draw: random.Random) -> str:
    words = [draw.choice(SUBJECTS), draw.choice(VERBS), "the", draw.choice(SUBJECTS), draw.choice(PLACES)]
    return f"The {' '.join(words)} while {draw.choice(TERMS)} on the day number {draw.randrange(10_000)}."
