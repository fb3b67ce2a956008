"""What a model answers, recorded when it is saved, so that whoever loads it later can prove it is the same.

Owns: the golden prompts, the record, and how its log-probabilities are computed.
Does not know: how far a loaded model may deviate (`attestation`).
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from jupiter.modeling.loading import UnfitModel, load_model
from jupiter.modeling.tokenizers import chat_template_digest, tokenizer_digest
from jupiter.records import Sha256, SharedRecord

__all__ = [
    "GOLDEN_FILE",
    "GOLDEN_PROMPTS",
    "Golden",
    "GoldenOutput",
    "file_digests",
    "golden",
    "read_golden",
    "record_golden",
    "token_log_probabilities",
]

GOLDEN_FILE = "golden.json"

GOLDEN_PROMPTS = (
    "What is a hash table?",
    "Write one sentence about the sea.",
    "def fibonacci(n):",
    "In Python, the function json.dumps",
)
"""Chat, prose and code: a damaged layer, head or embedding row shows in at least one of them."""

_TOKENS_PER_PROMPT = 12


class GoldenOutput(SharedRecord):
    """The greedy continuation of one prompt (token ids, without special tokens added) and its log-probabilities."""

    prompt: str
    prompt_tokens: tuple[int, ...]
    tokens: tuple[int, ...]
    log_probabilities: tuple[float, ...]
    """Natural logarithms, one per token of `tokens`."""
    greedy_gaps: tuple[float, ...]
    """How far (nats) each token is below the likeliest one: 0, or a near-tie that rounding broke while recording."""


class Golden(SharedRecord):
    """Everything attestation compares."""

    schema_version: Literal[1] = 1
    architecture: str
    parameters: int
    dtype: str
    files: dict[str, Sha256]
    """sha256 of every file of the model's directory, by name."""
    tokenizer_sha256: Sha256
    chat_template_sha256: Sha256
    outputs: tuple[GoldenOutput, ...] = Field(min_length=1)


def file_digests(directory: Path) -> dict[str, str]:
    """Return the sha256 of each file of a model directory, except records written about it afterwards."""
    digests = {}
    for path in sorted(directory.iterdir()):
        if path.is_file() and path.name not in (GOLDEN_FILE, "manifest.json"):
            with path.open("rb") as stream:
                digests[path.name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return digests


def golden(model: Any, tokenizer: Any, prompts: tuple[str, ...] = GOLDEN_PROMPTS, *, directory: Path) -> Golden:
    """Record what `model`, as it lies in `directory`, answers. Raises UnfitModel when it answers with no numbers.

    Pass the model as loaded from `directory` in the dtype that will serve (`record_golden` does both).
    """
    outputs = tuple(_golden_output(model, tokenizer, prompt) for prompt in prompts)
    for output in outputs:
        if not all(map(math.isfinite, output.log_probabilities)):
            raise UnfitModel(f"the model in {directory} yields log-probabilities that are not finite numbers")
    return Golden(
        architecture=type(model).__name__,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        dtype=str(model.dtype).removeprefix("torch."),
        files=file_digests(directory),
        tokenizer_sha256=tokenizer_digest(tokenizer),
        chat_template_sha256=chat_template_digest(tokenizer),
        outputs=outputs,
    )


def record_golden(directory: Path, *, dtype: str = "bfloat16", device: str = "cpu") -> Golden:
    """Load the model that was just saved to `directory` and record its golden outputs. Raises UnfitModel."""
    model, tokenizer = load_model(directory, dtype=dtype, device=device)
    return golden(model, tokenizer, directory=directory)


def read_golden(path: Path) -> Golden:
    """Read a golden.json. Raises UnfitModel when it is missing or damaged."""
    try:
        return Golden.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise UnfitModel(f"{path} is missing: a model without golden outputs cannot be attested") from None
    except ValidationError as error:
        raise UnfitModel(f"{path} is not a golden record: {error}") from error


def token_log_probabilities(model: Any, prompt_tokens: tuple[int, ...], tokens: tuple[int, ...]) -> Any:
    """Return log-probabilities over the vocabulary (float32, one row per token) under teacher forcing.

    Recording and attestation both come here, with a batch of one, so that on one machine they agree bit for bit.
    """
    import torch

    ids = torch.tensor([[*prompt_tokens, *tokens]], device=model.device)
    with torch.inference_mode():
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=len(tokens) + 1).logits[0, :-1]
    return torch.log_softmax(logits.float(), dim=-1).cpu()


def _golden_output(model: Any, tokenizer: Any, prompt: str) -> GoldenOutput:
    prompt_tokens = tuple(tokenizer(prompt)["input_ids"])
    tokens = _greedy(model, prompt_tokens)
    rows = token_log_probabilities(model, prompt_tokens, tokens)
    log_probabilities = tuple(float(rows[place, token]) for place, token in enumerate(tokens))
    return GoldenOutput(
        prompt=prompt,
        prompt_tokens=prompt_tokens,
        tokens=tokens,
        log_probabilities=log_probabilities,
        greedy_gaps=tuple(float(rows[place].max()) - seen for place, seen in enumerate(log_probabilities)),
    )


def _greedy(model: Any, prompt_tokens: tuple[int, ...]) -> tuple[int, ...]:
    import torch

    tokens: list[int] = []
    ids = torch.tensor([prompt_tokens], device=model.device)
    with torch.inference_mode():
        step = model(input_ids=ids, use_cache=True, logits_to_keep=1)
        while True:
            tokens.append(int(step.logits[0, -1].float().argmax()))
            if len(tokens) == _TOKENS_PER_PROMPT:
                return tuple(tokens)
            last = torch.tensor([tokens[-1:]], device=model.device)
            step = model(input_ids=last, past_key_values=step.past_key_values, use_cache=True)
