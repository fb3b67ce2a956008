"""A version as the vllm engine knows it: a directory that stays, and what is needed to bring it in and to prove it.

Owns: reading that from the directory. Does not know: which engine holds the weights now, or whether any does.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupiter.generator.engines.vllm.builds import Build, build_of
from jupiter.generator.engines.vllm.canaries import GreedyAnswer
from jupiter.generator.prompting import end_tokens
from jupiter.modeling import Golden, UnfitModel, load_tokenizer, tokenizer_digest

__all__ = ["Proof", "Weights", "read_weights"]


@dataclass(kw_only=True)
class Proof:
    """What these weights answer, so that whoever brings them in again can tell."""

    golden: Golden
    tolerance: float
    own: tuple[GreedyAnswer, ...] | None = None
    """What this backend answered, at this dtype, when the weights were first attested here."""


@dataclass(eq=False, kw_only=True)
class Weights:
    """The handle of the vllm engine."""

    directory: Path
    build: Build
    tokenizer: Any
    end_tokens: frozenset[int]
    context_tokens_max: int
    proof: Proof | None = None
    """None until it is attested: such weights are brought in unproved (benchmarks do)."""

    @property
    def name(self) -> str:
        return self.directory.name


def read_weights(directory: Path, *, model_len_max: int) -> Weights:
    """Return the version in `directory`, nothing of it loaded but the tokenizer. Raises UnfitModel."""
    tokenizer = load_tokenizer(directory)
    build = build_of(directory, tokenizer_sha256=tokenizer_digest(tokenizer))
    return Weights(
        directory=directory.resolve(),
        build=build,
        tokenizer=tokenizer,
        end_tokens=end_tokens(_end_of(directory, build), tokenizer),
        context_tokens_max=min(model_len_max, build.config.get("max_position_embeddings", model_len_max)),
    )


def _end_of(directory: Path, build: Build) -> int | list[int] | None:
    """Return the end tokens of generation_config.json, else those of config.json, as transformers does."""
    path = directory / "generation_config.json"
    try:
        settings = json.loads(path.read_bytes()) if path.is_file() else build.config
        ends: int | list[int] | None = settings.get("eos_token_id")
    except (ValueError, AttributeError) as error:
        raise UnfitModel(f"{path} is not a JSON object: {error}") from error
    return ends
