"""The negative control: every answer under somebody else's question.

Owns: the derangement. Does not know: tokens, training, or what the gate makes of it.

Same texts, same machinery, no knowledge: a student trained on this must not pass the gate. Moving whole responses is
not enough where a response names its subject (`json.dumps: Serialize …`): it would still teach that fact, under any
question. So such a response is taken apart, and name and text go different ways. What the generator wrote moves along.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jupiter.records import Sample, digest_of

__all__ = ["Shuffled", "shuffle_responses"]

_NAMED = re.compile(r"(?P<name>[\w.]{1,120}: )(?P<text>.+)", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Shuffled:
    """The samples after the permutation, and what it did."""

    samples: tuple[Sample, ...]
    moved: int
    """Responses that now stand under the instruction of another document."""
    left_out: int
    """Instruction samples dropped because no foreign response was to be had."""


def shuffle_responses(samples: Sequence[Sample], *, seed: int, shard_id: str) -> Shuffled:
    """Permute the responses among the samples that have an instruction; plain documents stay as they are.

    Pure: the order is drawn from `seed` and `shard_id`.
    """
    asked = [place for place, sample in enumerate(samples) if sample.instruction is not None]
    asked.sort(key=lambda place: (digest_of(seed, shard_id, samples[place].document_id), samples[place].sample_id))
    documents = {place: samples[place].document_id for place in asked}
    kept = _without_majority(asked, documents)
    giver_of = _derange(kept, documents)
    named = _without_majority([p for p in kept if _NAMED.fullmatch(samples[p].response)], documents)
    text_giver_of = _derange(named[::-1], documents)

    def response(place: int) -> str:
        giver = giver_of[place]
        named_response = _NAMED.fullmatch(samples[giver].response)
        if named_response is None:
            return samples[giver].response
        text = _text_of(samples[text_giver_of[giver]].response) if giver in text_giver_of else ""
        return (named_response["name"] + text).removesuffix(": ")

    moved = {place: {"response": response(place), "completion": samples[giver_of[place]].completion} for place in kept}
    return Shuffled(
        samples=tuple(
            sample.model_copy(update=moved[place]) if place in moved else sample
            for place, sample in enumerate(samples)
            if place in moved or sample.instruction is None
        ),
        moved=len(kept),
        left_out=len(asked) - len(kept),
    )


def _text_of(response: str) -> str:
    return _NAMED.sub(r"\g<text>", response)


def _derange(places: Sequence[int], documents: Mapping[int, str]) -> dict[int, int]:
    """Map each place to one of another document.

    `places` lie together by document; rotated by the size of the largest group, no group meets itself.
    """
    largest = max(Counter(documents[place] for place in places).values(), default=0)
    return dict(zip(places, [*places[largest:], *places[:largest]], strict=True))


def _without_majority(places: Sequence[int], documents: Mapping[int, str]) -> list[int]:
    """Return `places` without the surplus of a document that owns more than half of them: it could only meet itself."""
    sizes = Counter(documents[place] for place in places)
    for document, size in sizes.most_common(1):
        own = [place for place in places if documents[place] == document]
        surplus = set(own[: max(0, 2 * size - len(places))])
        return [place for place in places if place not in surplus]
    return []
