"""A small corpus for the evaluator's tests: made-up reference entries, examples and prose of two dozen groups."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence

from jupiter.evaluator.items import Corpus
from jupiter.records import Document

__all__ = ["make_corpus", "make_document", "python_runner"]

SUBJECTS = ("river", "engine", "garden", "letter", "market", "window", "forest", "bridge", "candle", "mirror")
VERBS = ("measures", "paints", "collects", "repairs", "describes", "counts", "lifts", "hides", "follows", "warms")
# Made-up terms, each in a few sentences only: what a cloze asks for.
TERMS = tuple(
    f"{stem}{middle}ing"
    for stem in ("bak", "rov", "tin", "lam", "pes", "gur", "mol", "fes", "nav", "zor")
    for middle in ("al", "em", "or")
)
PLACES = ("under the old harbour", "behind a quiet station", "near the northern gate", "inside every wooden box")


def make_document(
    text: str, *, title: str | None = None, kind: str = "text", group: str = "g", split: str = "held_out"
) -> Document:
    """Return a stored document with what the tests do not care about filled in."""
    return Document.model_validate(
        {
            "document_id": hashlib.sha256(text.encode()).hexdigest(),
            "domain": "toy",
            "text": text,
            "source": "test",
            "title": title,
            "kind": kind,
            "group": group,
            "split": split,
        }
    )


def _sentence(rng: random.Random) -> str:
    words = [rng.choice(SUBJECTS), rng.choice(VERBS), "the", rng.choice(SUBJECTS), rng.choice(PLACES)]
    return f"The {' '.join(words)} while {rng.choice(TERMS)} on the day number {rng.randrange(10_000)}."


def _entries(module: int, rng: random.Random) -> list[Document]:
    documents = []
    for number in range(4):
        title = f"pkg{module}.zq{module}x{number}"
        documents.append(make_document(_sentence(rng), title=title, kind="api", group=f"pkg{module}", split="training"))
        second = f"{_sentence(rng)} {_sentence(rng)}"
        documents.append(make_document(second, title=title, kind="api", group=f"pkg{module}"))
    return documents


def make_corpus(*, modules: int = 24, seed: int = 0) -> Corpus:
    """Return training entries with second wordings, arithmetic examples and prose, `modules` groups of each."""
    rng = random.Random(seed)
    documents: list[Document] = []
    for module in range(modules):
        documents += _entries(module, rng)
        examples = "".join(f">>> {module} + {n}\n{module + n}\n" for n in range(3)) + ">>> 7 * 7\n3\n"
        documents.append(make_document(examples, kind="example", group=f"pkg{module}"))
        paragraphs = ["  ".join(_sentence(rng) for _ in range(3)) for _ in range(10)]
        documents.append(make_document("\n\n".join(paragraphs), group=f"prose{module}"))
    return Corpus(
        held_out=tuple(doc for doc in documents if doc.split == "held_out"),
        training=tuple(doc for doc in documents if doc.split == "training"),
        run_session=python_runner,
    )


def python_runner(document: Document, sources: Sequence[str]) -> list[str | None]:
    """Stand in for the sandbox: our own sums, evaluated here."""
    return [f"{eval(source)}\n" for source in sources]  # noqa: S307 - our own sums
