"""A judge from a model directory on this machine.

Owns: asking it. Its verdict is the likeliest of the three allowed answers A, B and T, so there is nothing to parse.
Does not know: probes, pairs. The model is in memory only while it sits.
"""

from __future__ import annotations

import gc
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jupiter.config import ClusterConfig
from jupiter.errors import ConfigError
from jupiter.evaluator.judge.comparing import Comparison, Failed, JudgeTrouble, Progress, Winner
from jupiter.evaluator.judge.parties import Party
from jupiter.evaluator.judge.wording import ASK_LETTER, CRITERIA, material
from jupiter.modeling import UnfitModel, inspect_files, load_model, resolve_device

__all__ = ["LocalJudge", "create", "likeliest"]

WINNERS: tuple[Winner, ...] = ("first", "second", "tie")
LETTERS = ("A", "B", "T")


def create(config: ClusterConfig, environ: Mapping[str, str]) -> LocalJudge:  # noqa: ARG001 - every kind's interface
    """Return the judge in `judge.directory`. Raises ConfigError when there is no model that may be loaded."""
    if not config.judge.directory:
        raise ConfigError(
            "judge.kind is 'local', but judge.directory is empty: name a directory in Hugging Face layout"
        )
    directory = Path(config.judge.directory).expanduser()
    try:
        inspect_files(directory)
    except UnfitModel as error:
        raise ConfigError(f"judge.directory: {error}") from error
    return LocalJudge(
        directory=directory,
        dtype=config.evaluator.dtype,
        device=config.evaluator.device,
        pairs_max=config.judge.pairs_max,
    )


@dataclass(frozen=True, kw_only=True)
class LocalJudge:
    """A causal language model that compares log-probabilities."""

    directory: Path
    dtype: str
    device: str
    pairs_max: int
    computes_here: bool = True
    _digests: dict[tuple[str, int, int], str] = field(default_factory=dict, repr=False, compare=False)
    """By path, size and time of change: the directory may be a link that moves on to a contestant."""

    @property
    def name(self) -> str:
        return f"the model in {self.directory}"

    def conflict(self, party: Party) -> str:
        """One weight file in common is enough. Raises JudgeTrouble when the weights cannot be read."""
        shared = self._weights() & party.weights
        if not shared:
            return ""
        return (
            f"{self.name} is the {party.role} itself: both have the weight file with sha256 {min(shared)}; "
            "set judge.directory to another model"
        )

    @contextmanager
    def sitting(self) -> Iterator[_LocalSitting]:
        """Load the model; it is freed after the block."""
        try:
            model, tokenizer = load_model(self.directory, dtype=self.dtype, device=resolve_device(self.device))
        except UnfitModel as error:
            raise JudgeTrouble(f"{self.name} cannot be loaded: {error}") from error
        sitting = _LocalSitting(model, tokenizer, identity=f"weights {', '.join(sorted(self._weights()))}")
        try:
            yield sitting
        finally:
            del model  # one model in memory at a time
            sitting.release()
            gc.collect()

    def _weights(self) -> frozenset[str]:
        try:
            return frozenset(self._sha256(path.resolve()) for path in inspect_files(self.directory).weight_files)
        except (UnfitModel, OSError) as error:
            raise JudgeTrouble(f"the weights of {self.name} cannot be read: {error}") from error

    def _sha256(self, path: Path) -> str:
        stat = path.stat()
        key = (str(path), stat.st_size, stat.st_mtime_ns)
        if key not in self._digests:
            with path.open("rb") as stream:
                self._digests[key] = hashlib.file_digest(stream, "sha256").hexdigest()
        return self._digests[key]


class _LocalSitting:
    """The loaded model."""

    def __init__(self, model: Any, tokenizer: Any, *, identity: str) -> None:
        self._model, self._tokenizer, self._identity = model, tokenizer, identity
        # After a chat template the letter begins the reply; otherwise it follows `Verdict:`.
        self._options = LETTERS if tokenizer.chat_template else tuple(f" {letter}" for letter in LETTERS)

    @property
    def identity(self) -> str:
        return self._identity

    def release(self) -> None:
        """Drop the model."""
        self._model = None

    def compare(self, comparisons: Sequence[Comparison], progress: Progress) -> list[Winner | Failed]:
        """See `Sitting`. One forward pass over the criteria serves all comparisons."""
        from jupiter.evaluator.likelihood import PROMPT_TOKENS_MAX, continuations

        rendered = [self.rendered(comparison) for comparison in comparisons]
        answers: list[Winner | Failed] = []
        fitting: list[int] = []
        for place, (_, prompt) in enumerate(rendered):
            tokens = len(self._tokenizer(prompt, add_special_tokens=False)["input_ids"])
            answers.append(Failed(f"the pair has {tokens} tokens, {PROMPT_TOKENS_MAX} are the most"))
            if tokens <= PROMPT_TOKENS_MAX:
                fitting.append(place)
        progress(len(comparisons) - len(fitting))
        if not fitting:
            return answers
        for index, results in continuations(
            self._model,
            self._tokenizer,
            shared=rendered[0][0],
            prompts=[rendered[place][1] for place in fitting],
            options=[self._options] * len(fitting),
        ):
            answers[fitting[index]] = likeliest([result.log_probability for result in results])
            progress(1)
        return answers

    def rendered(self, comparison: Comparison) -> tuple[str, str]:
        """Return the beginning that all comparisons share, and what follows."""
        # One message of the user: not every chat template knows a system role.
        inner = f"{self._disarmed(material(comparison))}\n\n{ASK_LETTER}"
        text = f"{CRITERIA}\n\n{inner}"
        if self._tokenizer.chat_template:
            message = [{"role": "user", "content": text}]
            text = str(self._tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True))
        else:
            text = f"{text}\nVerdict:"
        begins = text.index(inner)
        return text[:begins], text[begins:]

    def _disarmed(self, text: str) -> str:
        """Break up this model's own control tokens, so that no answer can end its turn."""
        for token in self._tokenizer.all_special_tokens:
            text = text.replace(token, f"{token[0]} {token[1:]}")
        return text


def likeliest(log_probabilities: Sequence[float]) -> Winner | Failed:
    """Return the winner named by the likeliest letter; a tie when first and second are exactly as likely."""
    if not all(map(math.isfinite, log_probabilities)):
        return Failed(f"the model yields log-probabilities {list(log_probabilities)}")
    best = max(log_probabilities)
    leaders = [winner for winner, value in zip(WINNERS, log_probabilities, strict=True) if value == best]
    return leaders[0] if len(leaders) == 1 else "tie"
