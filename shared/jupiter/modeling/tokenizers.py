"""The identity of a tokenizer: what it does, not how its files happen to be written.

Owns: the two digests that attestation compares. Does not know: models.
"""

from __future__ import annotations

import hashlib
from typing import Any

from jupiter.records import digest_of

__all__ = ["chat_template_digest", "tokenizer_digest"]

# Text whose ids show a change of normalisation, pre-tokenisation or merges that leaves the vocabulary alone.
_PROBES = (
    "The quick brown fox jumps over 13 lazy dogs.",
    "def f(x: int = 3, *args) -> str:\n    return f'{x!r}'  # résumé\n",
    ">>> json.dumps({'a': [1, 2.5, None]}, indent=4)\t\n",
    "naïve café — 東京 “quotes” …",
)


def tokenizer_digest(tokenizer: Any) -> str:
    """Return a sha256 over vocabulary, special tokens and the ids of probe texts.

    Padding and truncation settings change at run time and are left out; so is the layout of tokenizer.json, which
    differs between writers.
    """
    return digest_of(
        sorted(tokenizer.get_vocab().items()),
        {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
        [tokenizer(probe, add_special_tokens=True)["input_ids"] for probe in _PROBES],
    )


def chat_template_digest(tokenizer: Any) -> str:
    """Return the sha256 of the chat template's text; a model without one has the digest of the empty string."""
    return hashlib.sha256((tokenizer.chat_template or "").encode()).hexdigest()
