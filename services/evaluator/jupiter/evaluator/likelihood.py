"""Log-probabilities of continuations, and greedy generation, in batches.

Owns: every forward pass of the evaluator. Does not know: items or scores.
The text shared by all prompts (worked examples) is run once, the prompt once for all its
continuations, and the vocabulary projection only where a continuation stands.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["Continuation", "Generated", "continuations", "generate"]

BATCH_TOKENS_MAX = 6_000
"""Tokens of one batch, padding included: about 0.6 GB of activations for a 135M model in bf16."""
BATCH_TOKENS_MIN = 300
"""From here on a batch ends rather than pad more than PADDING_SHARE_MAX of itself; smaller ones waste the time in which
the weights are read. Measured on the 211 development items of a real benchmark: 31,000 tokens computed, not 41,000."""
PADDING_SHARE_MAX = 0.2
PROMPT_TOKENS_MAX = 1_024
KEPT_SHARE_MAX = 0.75
"""Of a batch in generation: fewer moves of the cache, which cost half a step each."""


@dataclass(frozen=True)
class Continuation:
    """What the model thinks of one text after its prompt."""

    log_probability: float
    """Natural logarithm, summed over the tokens."""
    tokens: int
    bytes: int
    greedy: bool
    """Every token was the most likely one."""
    ended: bool
    """The most likely token after it ends the answer: an end token or a new line."""


@dataclass(frozen=True)
class Generated:
    text: str
    finished: bool
    """The model ended its answer by itself within the limit."""


@dataclass(frozen=True)
class _Row:
    index: int
    prompt: list[int]
    options: list[list[int]]

    @property
    def width(self) -> int:
        return len(self.prompt) + max(map(len, self.options)) * len(self.options)

    @property
    def tokens(self) -> int:
        return len(self.prompt) + sum(map(len, self.options))


def _tokens(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _batches(rows: Sequence[_Row], *, pairs_max: int = 256) -> Iterator[list[_Row]]:
    """Group rows with equally many options, of similar length, under BATCH_TOKENS_MAX and with little padding."""
    batch: list[_Row] = []
    tokens = 0
    for row in sorted(rows, key=lambda row: (len(row.options), row.width)):
        padded = _padded_tokens([*batch, row])
        wasteful = tokens >= BATCH_TOKENS_MIN and padded - tokens - row.tokens > PADDING_SHARE_MAX * padded
        options = len(row.options) * (len(batch) + 1)
        same = not batch or len(row.options) == len(batch[0].options)
        if batch and (padded > BATCH_TOKENS_MAX or wasteful or options > pairs_max or not same):
            yield batch
            batch, tokens = [], 0
        batch.append(row)
        tokens += row.tokens
    if batch:
        yield batch


def _padded_tokens(batch: Sequence[_Row]) -> int:
    """Return the tokens that are computed for a batch: prompts as long as the longest, options likewise."""
    prompt = max(len(row.prompt) for row in batch)
    option = max(len(option) for row in batch for option in row.options)
    return len(batch) * prompt + sum(len(row.options) for row in batch) * option


def _padded(sequences: Sequence[list[int]], *, left: bool, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and attention mask; padding is id 0 and masked out."""
    width = max(map(len, sequences))
    ids = torch.zeros(len(sequences), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        start = width - len(sequence) if left else 0
        ids[row, start : start + len(sequence)] = torch.tensor(sequence)
        mask[row, start : start + len(sequence)] = 1
    return ids.to(device), mask.to(device)


def _positions(mask: torch.Tensor, *, last: int) -> torch.Tensor:
    return (mask.cumsum(-1) - 1).clamp(min=0)[:, -last:]


class _Forward:
    """One model with the shared text already run."""

    def __init__(self, model: Any, shared: list[int]) -> None:
        self.model = model
        self.device = next(model.parameters()).device
        self.shared_length = len(shared)
        self._cache: Any = None
        if shared:
            ids = torch.tensor([shared], device=self.device)
            self._cache = model.base_model(input_ids=ids, use_cache=True).past_key_values

    def prompt(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[Any, torch.Tensor, torch.Tensor]:
        """Run the prompts; return the cache, the full mask and the last hidden state of each row."""
        cache = copy.deepcopy(self._cache)
        if cache is not None:
            cache.batch_repeat_interleave(ids.shape[0])
        full = torch.cat([mask.new_ones(ids.shape[0], self.shared_length), mask], 1)
        out = self.model.base_model(
            input_ids=ids,
            attention_mask=full,
            position_ids=_positions(full, last=ids.shape[1]),
            past_key_values=cache,
            use_cache=True,
        )
        return out.past_key_values, full, out.last_hidden_state[:, -1]

    def more(self, ids: torch.Tensor, full: torch.Tensor, cache: Any) -> Any:
        """Run further tokens after the cache."""
        return self.model.base_model(
            input_ids=ids,
            attention_mask=full,
            position_ids=_positions(full, last=ids.shape[1]),
            past_key_values=cache,
            use_cache=True,
        )

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.model.get_output_embeddings()(hidden).float()  # type: ignore[no-any-return]


def _run_batch(forward: _Forward, batch: Sequence[_Row]) -> list[list[tuple[float, bool, int]]]:
    """Return per row and option its log-probability, whether it is greedy, and the token that would follow."""
    ids, mask = _padded([row.prompt for row in batch], left=True, device=forward.device)
    cache, full, last = forward.prompt(ids, mask)
    count = len(batch[0].options)
    options = [option for row in batch for option in row.options]
    cache.batch_repeat_interleave(count)
    full = full.repeat_interleave(count, 0)
    option_ids, option_mask = _padded(options, left=False, device=forward.device)
    grown = torch.cat([full, option_mask], 1)
    after = forward.more(option_ids, grown, cache).last_hidden_state
    states = torch.cat([last.repeat_interleave(count, 0).unsqueeze(1), after], 1)
    chosen = option_mask.bool()
    logits = forward.logits(states[:, :-1][chosen])
    targets = option_ids[chosen]
    token_log_probability = logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1) - logits.logsumexp(-1)
    token_greedy = logits.argmax(-1) == targets
    ends = forward.logits(states[torch.arange(len(options)), option_mask.sum(1)]).argmax(-1).tolist()
    results: list[tuple[float, bool, int]] = []
    start = 0
    for option, following in zip(options, ends, strict=True):
        end = start + len(option)
        results.append((float(token_log_probability[start:end].sum()), bool(token_greedy[start:end].all()), following))
        start = end
    return [results[i * count : (i + 1) * count] for i in range(len(batch))]


@torch.inference_mode()
def continuations(
    model: Any, tokenizer: Any, *, shared: str, prompts: Sequence[str], options: Sequence[Sequence[str]]
) -> Iterator[tuple[int, list[Continuation]]]:
    """Yield (index of the prompt, its continuations), batch by batch, shortest first.

    Prompts longer than PROMPT_TOKENS_MAX lose their beginning.
    """
    forward = _Forward(model, _tokens(tokenizer, shared) if shared else [])
    rows = [
        _Row(i, _tokens(tokenizer, prompt)[-PROMPT_TOKENS_MAX:], [_tokens(tokenizer, option) for option in of_prompt])
        for i, (prompt, of_prompt) in enumerate(zip(prompts, options, strict=True))
    ]
    end_ids = set(_end_tokens(model, tokenizer).tolist())
    for batch in _batches(rows):
        for row, results in zip(batch, _run_batch(forward, batch), strict=True):
            yield (
                row.index,
                [
                    Continuation(
                        log_probability=log_probability,
                        tokens=len(tokens),
                        bytes=len(text.encode()),
                        greedy=greedy,
                        ended=following in end_ids or tokenizer.decode([following]).lstrip(" ").startswith("\n"),
                    )
                    for (log_probability, greedy, following), tokens, text in zip(
                        results, row.options, options[row.index], strict=True
                    )
                ],
            )


@torch.inference_mode()
def generate(
    model: Any, tokenizer: Any, prompts: Sequence[str], *, new_tokens_max: int, stop: str, batch_size: int = 32
) -> Iterator[tuple[int, Generated]]:
    """Yield (index, greedy answer). An answer ends at the end token or where `stop` first appears."""
    forward = _Forward(model, [])
    end_ids = set(_end_tokens(model, tokenizer).tolist())
    rows = [_tokens(tokenizer, prompt)[-PROMPT_TOKENS_MAX:] for prompt in prompts]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))

    def ended(tokens: Sequence[int]) -> bool:
        return tokens[-1] in end_ids or stop in _text(tokenizer, tokens)

    for start in range(0, len(order), batch_size):
        indices = order[start : start + batch_size]
        drawn = _draw(forward, [rows[i] for i in indices], new_tokens_max=new_tokens_max, ended=ended)
        for i, tokens in zip(indices, drawn, strict=True):
            closed = tokens[-1] in end_ids
            text = _text(tokenizer, tokens[:-1] if closed else tokens)
            yield i, Generated(text.split(stop)[0].strip(), closed or stop in text)


def _text(tokenizer: Any, tokens: Sequence[int]) -> str:
    return str(tokenizer.decode(tokens, skip_special_tokens=False)).lstrip()


def _draw(
    forward: _Forward, prompts: Sequence[list[int]], *, new_tokens_max: int, ended: Callable[[Sequence[int]], bool]
) -> list[list[int]]:
    """Return the likeliest tokens after each prompt, up to and with the one that ends it.

    A row that has ended costs as much as any other, so rows leave the batch once KEPT_SHARE_MAX of them are enough.
    """
    ids, mask = _padded(prompts, left=True, device=forward.device)
    cache, full, last = forward.prompt(ids, mask)
    drawn: list[list[int]] = [[] for _ in prompts]
    places = list(range(len(prompts)))  # whose row of the batch it is
    going = set(places)
    for _ in range(new_tokens_max):
        tokens = forward.logits(last).argmax(-1)
        for place, token in zip(places, tokens.tolist(), strict=True):
            if place in going:
                drawn[place].append(token)
                if ended(drawn[place]):
                    going.remove(place)
        if not going:
            break
        if len(going) <= KEPT_SHARE_MAX * len(places):
            kept = torch.tensor([row for row, place in enumerate(places) if place in going], device=forward.device)
            cache.batch_select_indices(kept)
            full, tokens, places = full[kept], tokens[kept], [place for place in places if place in going]
        full = torch.cat([full, full.new_ones(len(places), 1)], 1)
        last = forward.more(tokens.unsqueeze(1), full, cache).last_hidden_state[:, -1]
    return drawn


def _end_tokens(model: Any, tokenizer: Any) -> torch.Tensor:
    """Return the ids that end an answer: the tokenizer's and those of the generation config."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    ids = {tokenizer.eos_token_id, *(configured if isinstance(configured, list) else [configured])}
    return torch.tensor(sorted(i for i in ids if i is not None), device=next(model.parameters()).device)
