"""How long texts are in tokens of the generator's base model, without loading a model.

Owns: counting. Does not know: which texts. Uses HF `tokenizers`, never transformers.
"""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer

from jupiter import keys, manifests
from jupiter.blobs import Blobs
from jupiter.records import BlobRef, Manifest

__all__ = ["TokenCounter", "read_token_counter"]

TOKENIZER_FILE = "tokenizer.json"


class TokenCounter:
    """Counts tokens; `sha256` names the tokenizer in every shard's manifest."""

    def __init__(self, tokenizer_json: bytes, *, sha256: str) -> None:
        self._tokenizer = Tokenizer.from_str(tokenizer_json.decode())
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.sha256 = sha256

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens of each text, at least 1, special tokens left out."""
        if not texts:
            return []
        encoded = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [max(1, len(encoding.ids)) for encoding in encoded]


def read_token_counter(blobs: Blobs, domain: str) -> TokenCounter | None:
    """Return the counter of generator version 1's tokenizer, None while there is no version 1."""
    committed = manifests.find(blobs, keys.generator_prefix(domain, 1))
    if committed is None:
        return None
    ref = _tokenizer_file(committed.manifest)
    return TokenCounter(manifests.download_bytes(blobs, ref), sha256=ref.sha256)


def _tokenizer_file(manifest: Manifest) -> BlobRef:
    """Find `tokenizer.json`, at whatever depth the model lies. Raises KeyError."""
    for ref in manifest.files:
        if ref.name.rpartition("/")[2] == TOKENIZER_FILE:
            return ref
    return manifest.file(TOKENIZER_FILE)
