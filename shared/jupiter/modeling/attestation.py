"""The proof, before a model serves, that it is the one whose golden outputs were recorded (DESIGN §5).

Owns: the checks, cheap first, and their messages. Does not know: where the model came from or what happens on failure.

`attest` proves a model of transformers. A backend that computes by itself proves the same in two steps: `attest_record`
before it loads anything, then `attest_answer` on what it answers to each golden output.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupiter.errors import JupiterError
from jupiter.modeling.golden import Golden, GoldenOutput, file_digests, token_log_probabilities
from jupiter.modeling.tokenizers import chat_template_digest, tokenizer_digest

__all__ = ["Answer", "AttestationError", "attest", "attest_answer", "attest_record"]


class AttestationError(JupiterError):
    """A loaded model is not the model that was recorded; the text names the first check that failed."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a loaded model says of each token of a golden output, given the ones before it."""

    log_probabilities: Sequence[float]
    choices: Sequence[int]
    """The likeliest token at each place."""
    choice_log_probabilities: Sequence[float]


def attest(model: Any, tokenizer: Any, directory: Path, golden: Golden, tolerance: float) -> None:
    """Raise AttestationError unless the loaded model is the recorded one.

    `tolerance` is the largest absolute difference (nats) of a golden token's log-probability. A golden token must also
    be the greedy choice, or within `tolerance` of it: two tokens may be that close that rounding decides.
    """
    attest_record(tokenizer, directory, golden)
    _check_architecture(model, golden)
    _check_weights(model)
    for output in golden.outputs:
        attest_answer(output, _answer(model, output), tolerance)


def attest_record(tokenizer: Any, directory: Path, golden: Golden) -> None:
    """Raise AttestationError unless the files and the tokenizer are the recorded ones."""
    _check_files(directory, golden)
    _check_tokenizer(tokenizer, golden)
    for output in golden.outputs:
        if tuple(tokenizer(output.prompt)["input_ids"]) != output.prompt_tokens:
            raise AttestationError(
                f"the tokenizer splits the golden prompt {output.prompt!r} differently from the record"
            )


def attest_answer(output: GoldenOutput, answer: Answer, tolerance: float) -> None:
    """Raise AttestationError unless the answer is the recorded one within `tolerance` (see `attest`)."""
    for place, (token, recorded) in enumerate(zip(output.tokens, output.log_probabilities, strict=True)):
        seen = answer.log_probabilities[place]
        where = f"golden prompt {output.prompt!r}, token {place}"
        if not abs(seen - recorded) <= tolerance:  # `not <=`, so that NaN fails
            raise AttestationError(
                f"{where}: log-probability {seen:.4f}, recorded {recorded:.4f}, tolerance {tolerance}"
            )
        gap = answer.choice_log_probabilities[place] - seen
        if gap > output.greedy_gaps[place] + tolerance:
            choice = answer.choices[place]
            raise AttestationError(f"{where}: the greedy choice is {choice}, recorded was {token}, {gap:.4f} below it")


def _check_files(directory: Path, golden: Golden) -> None:
    seen = file_digests(directory)
    for name, sha256 in golden.files.items():
        if name not in seen:
            raise AttestationError(f"file {name} of {directory} is missing")
        if seen[name] != sha256:
            raise AttestationError(f"file {name} of {directory} has sha256 {seen[name]}, recorded was {sha256}")
    extra = sorted(seen.keys() - golden.files.keys())
    if extra:
        raise AttestationError(f"{directory} holds files that were not recorded: {extra}")


def _check_architecture(model: Any, golden: Golden) -> None:
    architecture = type(model).__name__
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if (architecture, parameters) != (golden.architecture, golden.parameters):
        raise AttestationError(
            f"loaded is a {architecture} of {parameters} parameters,"
            f" recorded was a {golden.architecture} of {golden.parameters}"
        )


def _check_tokenizer(tokenizer: Any, golden: Golden) -> None:
    if tokenizer_digest(tokenizer) != golden.tokenizer_sha256:
        raise AttestationError("the tokenizer is not the recorded one: its vocabulary, special tokens or splits differ")
    if chat_template_digest(tokenizer) != golden.chat_template_sha256:
        raise AttestationError("the chat template is not the recorded one")


def _check_weights(model: Any) -> None:
    import torch

    for name, parameter in model.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise AttestationError(f"weight {name} holds values that are not finite numbers (NaN or infinity)")


def _answer(model: Any, output: GoldenOutput) -> Answer:
    rows = token_log_probabilities(model, output.prompt_tokens, output.tokens)
    likeliest = rows.max(dim=-1)
    return Answer(
        log_probabilities=[float(rows[place, token]) for place, token in enumerate(output.tokens)],
        choices=likeliest.indices.tolist(),
        choice_log_probabilities=likeliest.values.tolist(),
    )
