"""One sample on its way through the filters, with what they all need to know about it.

Owns: the texts derived from a sample, each computed once. Does not know: any rule.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from datasketch import MinHash

from jupiter.overlap import wording
from jupiter.overlap.forbidden import training_text
from jupiter.overlap.signatures import own_size
from jupiter.records import Sample

__all__ = ["Candidate", "digest_of_text"]

_FENCED = re.compile(r"```[ \t]*(?:python|py|pycon)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)


def digest_of_text(text: str) -> str:
    """Return the sha256 of the text without regard to case, spacing and Unicode form: equal means exact duplicate."""
    return hashlib.sha256(" ".join(unicodedata.normalize("NFKC", text).casefold().split()).encode()).hexdigest()


@dataclass(frozen=True)
class Candidate:
    """A synthetic sample and the passage it claims to be grounded in (`source` None: the chunk does not exist)."""

    sample: Sample
    source: str | None
    title: str | None
    group: str
    signatures: Mapping[int, MinHash]
    """Shingle size -> signature of the training text; `signatures.own_size` says which is stored."""
    response_signatures: Mapping[int, MinHash]
    """The same of the response alone."""

    @cached_property
    def text(self) -> str:
        return training_text(self.sample)

    @cached_property
    def text_digest(self) -> str:
        return digest_of_text(self.text)

    @cached_property
    def words(self) -> tuple[str, ...]:
        return wording.words(self.text)

    @cached_property
    def response_words(self) -> tuple[str, ...]:
        return wording.words(self.sample.response)

    @cached_property
    def instruction_words(self) -> tuple[str, ...]:
        return wording.words(self.sample.instruction or "")

    @cached_property
    def names_the_answer(self) -> bool:
        """Whether the response is the passage's title, or what holds it (`json` for `json.dumps`).

        Such a question asks what something is called, or where it belongs.
        """
        title = (self.title or "").casefold()
        return bool(title) and self.sample.response.strip().rstrip(".").casefold() in {title, title.rpartition(".")[0]}

    @cached_property
    def claim(self) -> str:
        """What the generator says about the passage: the response without the name it may begin with (`name: …`).

        Where the response is nothing but the name, the instruction carries the claim.
        """
        if self.names_the_answer:
            return self.sample.instruction or ""
        response, label = self.sample.response.strip(), f"{self.title}:"
        return response[len(label) :].strip() if response.casefold().startswith(label.casefold()) else response

    @cached_property
    def claim_words(self) -> tuple[str, ...]:
        return wording.words(self.claim)

    @property
    def is_code(self) -> bool:
        """Whether the response is to be run or parsed as Python rather than read as prose."""
        return self.sample.test is not None or self.sample.task.startswith("code")

    @cached_property
    def code(self) -> str | None:
        """The Python in the response: its fenced blocks, or all of it for a code task; None for prose."""
        blocks = _FENCED.findall(self.sample.response)
        if blocks:
            return "\n\n".join(blocks)
        return self.sample.response if self.is_code else None

    @property
    def signature(self) -> MinHash:
        """The signature that is stored with the shard."""
        return self.signatures[own_size(len(self.words))]
