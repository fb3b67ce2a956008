"""A prompt as the model sees it: chat template, tokens, what ends an answer, and whether it fits.

Owns: what every engine must do alike, so that one sample is the same question to all of them. Does not know: models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jupiter.errors import Rejected
from jupiter.generator.engines import Prompt

__all__ = ["Rendered", "end_tokens", "render"]


@dataclass(frozen=True, kw_only=True)
class Rendered:
    text: str
    tokens: list[int]


def render(tokenizer: Any, prompt: Prompt, *, new_tokens: int, context_tokens_max: int) -> Rendered:
    """Return the prompt's text and tokens. Raises Rejected when it leaves no room for `new_tokens`."""
    text = prompt.text
    chat = prompt.chat and tokenizer.chat_template
    if chat:
        turn = [{"role": "user", "content": prompt.text}]
        text = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    tokens = tokenizer(text, add_special_tokens=not chat)["input_ids"]
    if len(tokens) + new_tokens > context_tokens_max:
        raise Rejected(
            f"a prompt of {len(tokens)} tokens and {new_tokens} new ones exceed the model's context of"
            f" {context_tokens_max}: lower curator.chunk_chars_max or controller.sampling.max_new_tokens"
        )
    return Rendered(text=text, tokens=tokens)


def end_tokens(configured: int | list[int] | None, tokenizer: Any) -> frozenset[int]:
    """Return every token that ends an answer, by the model's own generation settings and by its tokenizer."""
    listed = configured if isinstance(configured, list) else [configured]
    return frozenset(token for token in [*listed, tokenizer.eos_token_id] if token is not None)
