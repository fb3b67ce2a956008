"""How fast this machine generates: the engine on the demo's own prompts, beside `model.generate` of transformers.

    python bench/generate.py MODEL_DIRECTORY [--samples 128] [--threads 2] [--batch-sizes 32 64 128]

Prompts are the built-in domain's passages under its four tasks. Prints JSON, one line per variant. Tokens are those a
completion keeps; the peer gets the same prompts, sorted by length, in batches of the same size, and stops a batch when
all of its rows have met a stop string.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from jupiter.domains import source
from jupiter.generator.engines import Completion, EngineSettings, Prompt, create_engine
from jupiter.generator.tasks import Request, Unusable, find_task
from jupiter.records import Chunk, Sampling, digest_of

TASKS = ("restate", "locate", "need", "explain")


def prompts(count: int) -> list[Prompt]:
    """Return the first `count` prompts that the domain's training entries give."""
    return list(islice(_prompts(count), count))


def _prompts(count: int) -> Any:
    for number, document in enumerate(source("python_stdlib", entries_max=max(20, count))):
        if document.kind != "api" or document.split == "held_out":
            continue
        task = find_task(TASKS[number % len(TASKS)])
        passage = Chunk(document_id=digest_of(number), index=0, text=document.text, title=document.title)
        rendered = task.render(Request(chunk=passage, audience="a beginner", difficulty="easy"))
        if not isinstance(rendered, Unusable):
            yield Prompt(text=rendered.text, seed=number, stop=rendered.stop, template=task.template)


def peer(handle: Any, wanted: Sequence[Prompt], sampling: Sampling, batch_size: int) -> int:
    """Generate with transformers alone; return the tokens up to each row's stop."""
    tokenizer, model, made = handle.tokenizer, handle.model, 0
    ordered = sorted(wanted, key=lambda prompt: -len(tokenizer(prompt.text)["input_ids"]))
    for start in range(0, len(ordered), batch_size):
        batch = ordered[start : start + batch_size]
        encoded = tokenizer([prompt.text for prompt in batch], return_tensors="pt", padding=True)
        output = model.generate(
            **encoded,
            max_new_tokens=sampling.max_new_tokens,
            do_sample=True,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            stop_strings=["\n"],
            tokenizer=tokenizer,
            pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id,
        )
        for row in output[:, encoded["input_ids"].shape[1] :]:
            text = tokenizer.decode(row, skip_special_tokens=True).split("\n")[0]
            made += len(tokenizer(text)["input_ids"]) + 1
    return made


def measure(name: str, work: Any, *, batch_size: int, samples: int) -> None:
    began = time.perf_counter()
    tokens = work()
    seconds = time.perf_counter() - began
    rates = {"tokens_per_s": round(tokens / seconds, 1), "samples_per_s": round(samples / seconds, 2)}
    print(json.dumps({"engine": name, "batch_size": batch_size, "seconds": round(seconds, 2), **rates}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--dtype", default="bfloat16")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    sampling = Sampling(max_new_tokens=arguments.new_tokens)
    wanted = prompts(arguments.samples)
    for size in arguments.batch_sizes:
        settings = EngineSettings(dtype=arguments.dtype, device="cpu", batch_size=size)
        engine = create_engine("transformers", settings)
        handle = engine.load(arguments.model)

        def ours(engine: Any = engine, handle: Any = handle) -> int:
            made: list[Completion] = engine.generate(handle, wanted, sampling=sampling, progress=lambda *_: None)
            return sum(completion.tokens for completion in made)

        def theirs(handle: Any = handle, size: int = size) -> int:
            return peer(handle, wanted, sampling, size)

        ours()  # the first run fills caches of kernels and memory
        measure("jupiter", ours, batch_size=size, samples=len(wanted))
        measure("transformers.generate", theirs, batch_size=size, samples=len(wanted))
        engine.release(handle)


if __name__ == "__main__":
    main()
