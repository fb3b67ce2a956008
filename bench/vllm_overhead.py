"""What Jupiter's vllm engine costs on top of vLLM: the same prompts through it and through a bare AsyncLLM.

    python bench/vllm_overhead.py MODEL_DIRECTORY [--samples 128] [--new-tokens 64] [--rounds 5]

Run it in the environment of `make test-vllm`. Both get the same token ids and the same sampling parameters. They take
turns, and who begins changes every round; only one engine is in memory, so both sides use the very same AsyncLLM: what
is measured is Jupiter's own part (threads, gate, pace, prompts to tokens, text to completions).

Prints JSON: each round's tokens per second, and per second of processor time of this process and the engine's; then for
both the ratio Jupiter : AsyncLLM of each round, as median and quartiles. On a machine that others use too, the first
ratio follows the others' load, however rounds alternate; the second says what Jupiter's part costs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from jupiter.config.sections import VllmSection
from jupiter.generator.engines import EngineSettings, Prompt, create_engine
from jupiter.records import Sampling


def prompts(count: int) -> list[Prompt]:
    """Return passages of the standard library's documentation with a task before them."""
    texts = [
        text
        for module in (argparse, asyncio, json, statistics, time)
        for item in vars(module).values()
        if isinstance(text := getattr(item, "__doc__", None), str) and len(text) > 80
    ]
    return [
        Prompt(text=f"Explain to a beginner, in two sentences:\n{texts[n % len(texts)][:600]}\n", seed=n)
        for n in range(count)
    ]


def bare(engine: Any, handle: Any, wanted: Sequence[Prompt], sampling: Sampling) -> int:
    """Generate with AsyncLLM alone: every prompt at once, as its own examples do; return the tokens made."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    llm = engine._host_of[handle]._llm
    asked = [
        (
            handle.tokenizer(prompt.text)["input_ids"],
            SamplingParams(
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=sampling.max_new_tokens,
                seed=prompt.seed,
                output_kind=RequestOutputKind.FINAL_ONLY,
            ),
        )
        for prompt in wanted
    ]

    async def one(number: int, tokens: list[int], parameters: Any) -> int:
        made = 0
        async for output in llm.generate(
            {"prompt_token_ids": tokens}, parameters, f"bare-{time.monotonic_ns()}-{number}"
        ):
            made = len(output.outputs[0].token_ids)
        return made

    async def run() -> int:
        return sum(await asyncio.gather(*(one(number, *each) for number, each in enumerate(asked))))

    return int(engine._loop.run(run()))


def ours(engine: Any, handle: Any, wanted: Sequence[Prompt], sampling: Sampling) -> int:
    made = engine.generate(handle, wanted, sampling=sampling, progress=lambda *_: None)
    return sum(completion.tokens for completion in made)


def rates(engine: Any, work: Callable[[], int]) -> tuple[float, float]:
    """Return tokens per second, and per second of processor time; the prefix cache is empty at the start."""
    for host in engine._hosts:
        engine._loop.run(host._llm.reset_prefix_cache())
    began, busy = time.perf_counter(), processor_s()
    tokens = work()
    return tokens / (time.perf_counter() - began), tokens / (processor_s() - busy)


def processor_s() -> float:
    """Return the processor time that this process and the engine's have used."""
    this = psutil.Process()
    return sum(sum(each.cpu_times()[:2]) for each in (this, *this.children(recursive=True)))


def ratio(rounds: Sequence[dict[str, tuple[float, float]]], which: int) -> dict[str, float]:
    """Return quartiles of the rounds' ratios, Jupiter : AsyncLLM."""
    found = [each["jupiter"][which] / each["AsyncLLM"][which] for each in rounds]
    low, median, high = statistics.quantiles(found, n=4, method="inclusive")
    return {"median": round(median, 3), "quartile_1": round(low, 3), "quartile_3": round(high, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5, help="2 or more")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--temperature", type=float, default=0.7)
    arguments = parser.parse_args()
    section = VllmSection(kv_cache_gib=0.5, max_model_len=2048)
    settings = EngineSettings(dtype="bfloat16", device="auto", batch_size=arguments.batch_size, own=section)
    engine: Any = create_engine("vllm", settings)
    handle = engine.load(arguments.model)
    sampling = Sampling(temperature=arguments.temperature, max_new_tokens=arguments.new_tokens)
    wanted = prompts(arguments.samples)
    sides: dict[str, Callable[[], int]] = {
        "jupiter": lambda: ours(engine, handle, wanted, sampling),
        "AsyncLLM": lambda: bare(engine, handle, wanted, sampling),
    }
    ours(engine, handle, wanted[:16], sampling)  # starts the engine and warms it
    rounds: list[dict[str, tuple[float, float]]] = []
    for number in range(arguments.rounds):
        found = {name: rates(engine, sides[name]) for name in sorted(sides, reverse=number % 2 == 0)}
        rounds.append(found)
        shown = {name: [round(value, 1) for value in values] for name, values in found.items()}
        print(json.dumps({"round": number, **shown}), flush=True)
    print(
        json.dumps(
            {
                "tokens_per_s": {name: round(statistics.median(each[name][0] for each in rounds), 1) for name in sides},
                "ratio": ratio(rounds, 0),
                "ratio_by_processor_time": ratio(rounds, 1),
            }
        )
    )
    engine.release(handle)


if __name__ == "__main__":
    main()
