"""Real samples: what of a real document is trained on, and in which form.

Owns: the recipe. Does not know: how many are used (`mix`), nor which are forbidden (`benchmark`).

A reference entry is learned in both directions, since a small model that has read `name: description` cannot tell the
name from the description (the reversal curse, Berglund et al. 2023, arXiv 2309.12288). Neither side holds the other's
part, and only the response is learned: with responses permuted among instructions (the trainer's negative control)
nothing true may be left to learn.
"""

from __future__ import annotations

from collections.abc import Iterator

from jupiter.records import Chunk, Document, Sample, digest_of

__all__ = ["real_samples"]

RESPONSE_CHARS_MIN = 12
"""A real text shorter than this says nothing that could be learned."""


def real_samples(document: Document, chunks: tuple[Chunk, ...]) -> Iterator[Sample]:
    """Yield the real samples of one training document: up to four for an entry with a title, else plain passages.

    The two that are answered with where the entry belongs (`json` for `json.dumps`) teach that a question may ask for
    less than the full title: a student without them answers every question with a title (docs/experiments.md).

    Each is counted by itself in `curator.real_repeats_max`.
    """
    for chunk in chunks:
        if len(chunk.text.strip()) < RESPONSE_CHARS_MIN:
            continue
        if document.kind == "api" and document.title:
            yield _sample(chunk, instruction=f"What is {document.title}?", response=chunk.text)
            yield _sample(chunk, instruction=f"{chunk.text} What is it called?", response=document.title)
            container, _, name = document.title.rpartition(".")
            if container:
                yield _sample(chunk, instruction=f"Where does {name} belong?", response=container)
                yield _sample(chunk, instruction=f"{chunk.text} Where does this belong?", response=container)
        else:
            yield _sample(chunk, instruction=None, response=chunk.text)


def _sample(chunk: Chunk, *, instruction: str | None, response: str) -> Sample:
    return Sample(
        sample_id=digest_of("real", chunk.document_id, chunk.index, instruction),
        origin="real",
        instruction=instruction,
        response=response,
        loss_on="all" if instruction is None else "response",
        document_id=chunk.document_id,
        chunk_index=chunk.index,
        task="document",
    )
