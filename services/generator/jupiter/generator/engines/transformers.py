"""The `transformers` engine: batched generation in this process, on CPU, CUDA or MPS.

Owns: batching, the decoding loop, and stopping. Does not know: sampling (`sampling`), tasks, versions.

Prompts are sorted by length and cut into batches of similar length, padded on the left. What the prompts of one
template have in common is computed once and its cache copied to each row. A batch shrinks when rows finish: what is
left computes faster.

Regenerating a sample: the draws of a row come from its own seed alone (`sampling.Draws`), not from its neighbours.
Running the same request again on the same machine gives the same text bit for bit. Alone, or on other hardware, a row
has the same draws but is rounded differently in bf16 (matrix shapes differ), so a near-tie may fall the other way.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from jupiter.generator.engines import Completion, EngineSettings, Progress, Prompt
from jupiter.generator.prompting import end_tokens, render
from jupiter.generator.sampling import Draws, choose
from jupiter.modeling import GOLDEN_FILE, NoRoom, attest, load_model, read_golden, resolve_device
from jupiter.records import Sampling

__all__ = ["TransformersEngine", "create"]


@dataclass(frozen=True, kw_only=True)
class _Handle:
    model: Any
    tokenizer: Any
    end_tokens: frozenset[int]
    context_tokens_max: int


@dataclass(kw_only=True)
class _Row:
    """One completion in the making."""

    index: int
    prompt: Prompt
    text: str
    prompt_tokens: list[int]
    tokens: list[int]


def create(settings: EngineSettings) -> TransformersEngine:
    return TransformersEngine(settings)


class TransformersEngine:
    """See `Engine`."""

    def __init__(self, settings: EngineSettings) -> None:
        self._dtype = settings.dtype
        self._device = resolve_device(settings.device)
        self._batch_size = settings.batch_size

    def load(self, directory: Path) -> _Handle:
        with _room_for(directory):
            model, tokenizer = load_model(directory, dtype=self._dtype, device=self._device)
        return _Handle(
            model=model,
            tokenizer=tokenizer,
            end_tokens=end_tokens(model.generation_config.eos_token_id, tokenizer),
            context_tokens_max=getattr(model.config, "max_position_embeddings", 1 << 20),
        )

    def attest(self, handle: _Handle, directory: Path, *, tolerance: float) -> None:
        golden = read_golden(directory / GOLDEN_FILE)
        with _room_for(directory):
            attest(handle.model, handle.tokenizer, directory, golden, tolerance)

    def activate(self, handle: _Handle) -> None:
        """Every version that is loaded is ready."""

    def release(self, handle: _Handle) -> None:
        handle.model.to("meta")  # frees the weights even while something still refers to the handle
        gc.collect()
        if self._device.startswith("cuda"):
            torch.cuda.empty_cache()

    def generate(
        self, handle: _Handle, prompts: Sequence[Prompt], *, sampling: Sampling, progress: Progress
    ) -> list[Completion]:
        rows = [_row(handle, index, prompt, sampling) for index, prompt in enumerate(prompts)]
        rows.sort(key=lambda row: (-len(row.prompt_tokens), row.index))
        completions: list[Completion | None] = [None] * len(prompts)
        for start in range(0, len(rows), self._batch_size):
            batch = rows[start : start + self._batch_size]
            with torch.inference_mode():
                for row, completion in _decode_batch(handle, batch, sampling, progress):
                    completions[row.index] = completion
        return [completion for completion in completions if completion is not None]


@contextmanager
def _room_for(directory: Path) -> Iterator[None]:
    """Raise NoRoom where a GPU has not the memory after all: others took it since `load_model` looked."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise NoRoom(f"{directory} is short of memory on the GPU: {error}") from error


def _row(handle: _Handle, index: int, prompt: Prompt, sampling: Sampling) -> _Row:
    rendered = render(
        handle.tokenizer,
        prompt,
        new_tokens=sampling.max_new_tokens,
        context_tokens_max=handle.context_tokens_max,
    )
    return _Row(index=index, prompt=prompt, text=rendered.text, prompt_tokens=rendered.tokens, tokens=[])


def _decode_batch(
    handle: _Handle, rows: Sequence[_Row], sampling: Sampling, progress: Progress
) -> Iterator[tuple[_Row, Completion]]:
    """Yield each row with its completion, as the rows finish."""
    draws = Draws([row.prompt.seed for row in rows], steps=sampling.max_new_tokens)
    state = _Decoding.begin(handle, rows)
    alive = list(range(len(rows)))
    for step in range(sampling.max_new_tokens):
        tokens = choose(
            state.logits, temperature=sampling.temperature, top_p=sampling.top_p, draws=draws.at(step, alive)
        ).tolist()
        for place, token in zip(alive, tokens, strict=True):
            rows[place].tokens.append(token)
        last = step == sampling.max_new_tokens - 1
        finished = {}
        for place in alive:
            completion = _finished(handle, rows[place], last=last)
            if completion is not None:
                finished[place] = completion
        yield from ((rows[place], completion) for place, completion in finished.items())
        progress(len(finished), len(alive))
        kept = [number for number, place in enumerate(alive) if place not in finished]
        alive = [alive[number] for number in kept]
        if not alive:
            return
        state = state.advance(handle, tokens, kept)


@dataclass(kw_only=True)
class _Decoding:
    """The tensors of a running batch: all have one row per unfinished completion."""

    logits: torch.Tensor
    mask: torch.Tensor
    position: torch.Tensor
    cache: Any

    @classmethod
    def begin(cls, handle: _Handle, rows: Sequence[_Row]) -> _Decoding:
        """Run the beginning that the rows of each template share, once each, then what is different in every row."""
        groups: dict[str, list[int]] = {}
        for number, row in enumerate(rows):
            groups.setdefault(row.prompt.template, []).append(number)
        shared = [_common_beginning([rows[number].prompt_tokens for number in members]) for members in groups.values()]
        group_of = {number: group for group, members in enumerate(groups.values()) for number in members}
        if not any(shared):
            return _run(handle, [row.prompt_tokens for row in rows], mask=None, position=None, cache=None)
        state = _run(handle, shared, mask=None, position=None, cache=None)
        order = torch.tensor([group_of[number] for number in range(len(rows))], device=state.mask.device)
        state.cache.batch_select_indices(order)
        rest = [row.prompt_tokens[len(shared[group_of[number]]) :] for number, row in enumerate(rows)]
        return _run(handle, rest, mask=state.mask[order], position=state.position[order], cache=state.cache)

    def advance(self, handle: _Handle, tokens: Sequence[int], kept: Sequence[int]) -> _Decoding:
        """Drop the finished rows and run the chosen tokens of the others through the model."""
        mask, position = self.mask, self.position
        if len(kept) < len(tokens):
            rows = torch.tensor(kept, device=mask.device)
            mask, position = mask[rows], position[rows]
            self.cache.batch_select_indices(rows)
        return _run(handle, [[tokens[row]] for row in kept], mask=mask, position=position, cache=self.cache)


def _run(
    handle: _Handle,
    parts: Sequence[Sequence[int]],
    *,
    mask: torch.Tensor | None,
    position: torch.Tensor | None,
    cache: Any,
) -> _Decoding:
    """Append one part per row, padded on the left, and run the model. Positions go on where each row's own ended."""
    device = handle.model.device
    width = max(map(len, parts))
    ids = torch.zeros((len(parts), width), dtype=torch.long)
    new = torch.zeros_like(ids)
    for number, part in enumerate(parts):
        ids[number, width - len(part) :] = torch.tensor(part)
        new[number, width - len(part) :] = 1
    ids, new = ids.to(device), new.to(device)
    begun = new.new_full((len(parts), 1), -1) if position is None else position
    positions = (begun + new.cumsum(dim=-1)).clamp(min=0)
    whole = new if mask is None else torch.cat([mask, new], dim=-1)
    output = handle.model(
        input_ids=ids,
        attention_mask=whole,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    return _Decoding(logits=output.logits[:, -1], mask=whole, position=positions[:, -1:], cache=output.past_key_values)


def _common_beginning(rows: Sequence[Sequence[int]]) -> Sequence[int]:
    """Return the tokens that all rows begin with, leaving each row at least its last one."""
    length = min(map(len, rows)) - 1
    first = rows[0]
    for row in rows[1:]:
        length = next((at for at in range(length) if row[at] != first[at]), length)
    return first[: max(length, 0)]


def _finished(handle: _Handle, row: _Row, *, last: bool) -> Completion | None:
    """Return the row's completion if its newest token ended it, or if it is the `last` that it may have."""
    ended = row.tokens[-1] in handle.end_tokens
    if not (ended or last or row.prompt.stop):
        return None
    text: str = handle.tokenizer.decode(row.tokens[:-1] if ended else row.tokens, skip_special_tokens=True)
    stops = [at for at in (text.find(stop) for stop in row.prompt.stop) if at >= 0]
    if not (ended or stops or last):
        return None
    return Completion(
        prompt=row.text,
        text=text[: min(stops)] if stops else text,
        tokens=len(row.tokens),
        finish_reason="stop" if ended or stops else "length",
    )
