"""How a sample becomes tokens, and which of them are learned.

Owns: the sample formats and truncation. Does not know: how samples are packed or trained on.

A format turns an instruction into the text before the answer and the text that ends the answer. Prompt and answer are
tokenised apart, because that is how a generator meets them: it gets the prompt's tokens and makes the answer's.

A share of the accepted samples is learned in a second form as well: as they were generated, the passage in the prompt
and the generator's completion after it (rejection-sampling fine-tuning, Yuan et al. 2023, arXiv 2308.01825). A student
that only learns closed-book answers forgets how to write data: it would answer well and be useless as a generator.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jupiter.records import Sample
from jupiter.trainer.packing import Encoded

__all__ = ["AS_GENERATED", "FORMATS", "EncodedSamples", "Encoder", "Frame"]

AS_GENERATED = 1
"""The piece number of a sample's second form."""

# Stands in for the answer while the chat template is rendered; a private-use character, so it occurs in no template.
_ANSWER_MARK = "\ue000"


@dataclass(frozen=True, kw_only=True)
class Frame:
    """What stands around the answer."""

    before: str
    after: str
    space: str = ""
    """Goes with the answer's first token: `before` must not end in a space, or its last token would not be the
    generator's."""


def chat(instruction: str, tokenizer: Any) -> Frame:
    """Render the tokenizer's own chat template: a user turn, then the assistant's."""
    asked = [{"role": "user", "content": instruction}]
    before = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template([*asked, {"role": "assistant", "content": _ANSWER_MARK}], tokenize=False)
    return Frame(before=before, after=whole.rpartition(_ANSWER_MARK)[2].rstrip() or tokenizer.eos_token)


def question(instruction: str, tokenizer: Any) -> Frame:
    """Render a plain question and answer without a chat template: what small models recall facts from best here."""
    return Frame(before=f"Question: {instruction}\nAnswer:", after=tokenizer.eos_token, space=" ")


def plain(instruction: str, tokenizer: Any) -> Frame:
    """Instruction, newline, answer: for base models without a chat template."""
    return Frame(before=f"{instruction}\n", after=tokenizer.eos_token)


FORMATS: Mapping[str, Callable[[str, Any], Frame]] = {"question": question, "chat": chat, "plain": plain}


@dataclass(frozen=True, kw_only=True)
class EncodedSamples:
    """Samples as tokens, in order, and how many had to be cut or left out, by reason."""

    samples: tuple[Encoded, ...]
    counts: Counter[str]


class Encoder:
    """Tokenises samples; may be used from any thread."""

    def __init__(
        self, tokenizer: Any, *, sample_format: str, sequence_length: int, as_generated_share: float = 0.0
    ) -> None:
        self._tokenizer = tokenizer
        self._as_generated_share = as_generated_share
        self._format = FORMATS[sample_format]
        self._length = sequence_length

    def encode(self, samples: Iterable[Sample]) -> EncodedSamples:
        """Return the samples as tokens; a document longer than the sequence length gives several pieces."""
        counts: Counter[str] = Counter()
        encoded: list[Encoded] = []
        for sample in samples:
            if sample.instruction is None:
                encoded += self._document(sample, counts)
            else:
                encoded += self._answer(sample, sample.instruction, counts)
                encoded += self._as_generated(sample, counts)
        return EncodedSamples(samples=tuple(encoded), counts=counts)

    def _document(self, sample: Sample, counts: Counter[str]) -> Iterator[Encoded]:
        """Yield a document, all of it learned, cut into pieces of the sequence length."""
        tokens = (*self._tokens(sample.response.strip(), special=True), self._tokenizer.eos_token_id)
        for piece, begin in enumerate(range(0, len(tokens), self._length)):
            part = tokens[begin : begin + self._length]
            if len(part) < 2:  # a lone token has nothing to be predicted from
                counts["too_short"] += 1
                continue
            yield Encoded(sample_id=sample.sample_id, piece=piece, tokens=part)

    def _answer(self, sample: Sample, instruction: str, counts: Counter[str]) -> Iterator[Encoded]:
        """Yield prompt and answer. One too long loses the end of its answer, and the token that says it ended."""
        frame = self._format(instruction.strip(), self._tokenizer)
        # A chat template writes its own special tokens; plain text gets those that the tokenizer adds by itself.
        prompt = self._tokens(frame.before, special=self._format is not chat)
        answer = self._tokens(frame.space + sample.response.strip() + frame.after, special=False)
        tokens = prompt + answer
        if len(prompt) >= self._length:
            counts["prompt_too_long"] += 1
            return
        if len(tokens) > self._length:
            counts["truncated"] += 1
        learned_from = len(prompt) if sample.loss_on == "response" else 1
        yield Encoded(sample_id=sample.sample_id, tokens=tokens[: self._length], learned_from=max(1, learned_from))

    def _as_generated(self, sample: Sample, counts: Counter[str]) -> Iterator[Encoded]:
        """Yield the generator's own prompt, without worked examples, and its completion, if the sample is drawn."""
        if sample.own_prompt is None or not sample.completion or not self._drawn(sample):
            return
        prompt = self._tokens(sample.own_prompt, special=True)
        # The next worked example would begin after an empty line: that is where such a completion stops.
        tokens = prompt + self._tokens(f"{sample.completion.rstrip()}\n\n", special=False)
        if len(tokens) > self._length:
            counts["as_generated_too_long"] += 1
            return
        counts["as_generated"] += 1
        yield Encoded(sample_id=sample.sample_id, piece=AS_GENERATED, tokens=tokens, learned_from=max(1, len(prompt)))

    def _drawn(self, sample: Sample) -> bool:
        """Draw by the sample's id, so that every pass and every resume draws the same."""
        return int(sample.sample_id[:8], 16) < self._as_generated_share * 2**32

    def _tokens(self, text: str, *, special: bool) -> tuple[int, ...]:
        return tuple(self._tokenizer(text, add_special_tokens=special)["input_ids"])
