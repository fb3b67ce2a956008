"""How fast this machine trains: tokens per second of one optimizer step, by attention and row length.

    OMP_WAIT_POLICY=passive python bench/train.py MODEL_DIRECTORY [--threads 2] [--sample-tokens 52] [--steps 5]

Samples are random tokens of the demo's lengths, two thirds of each learned. Prints JSON, one line per variant.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from jupiter.config.sections import TrainerSection
from jupiter.trainer.attention import PER_SAMPLE
from jupiter.trainer.packing import Encoded, Row, pack
from jupiter.trainer.student import Student


def samples(*, total: int, mean: int) -> Iterator[Encoded]:
    draw = random.Random(0)  # noqa: S311 - a benchmark
    made = 0
    while made < total:
        length = draw.randint(max(3, mean // 2), mean + mean // 2)
        tokens = tuple(draw.randint(10, 500) for _ in range(length))
        yield Encoded(sample_id=str(made), tokens=tokens, learned_from=max(1, length // 3))
        made += length


def measure(student: Student, rows: tuple[Row, ...], *, steps: int) -> dict[str, float]:
    """Return rates of the fastest of `steps` steps, after one that warms up."""
    student.step(rows, number=0)
    tokens = sum(len(row.tokens) for row in rows)
    wall, cpu = [], []
    for number in range(steps):
        wall_began, cpu_began = time.perf_counter(), time.process_time()
        student.step(rows, number=number)
        wall.append(time.perf_counter() - wall_began)
        cpu.append(time.process_time() - cpu_began)
    return {"tokens_per_s": round(tokens / min(wall), 1), "tokens_per_cpu_s": round(tokens / min(cpu), 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--sample-tokens", type=int, default=52, help="mean length of a sample")
    parser.add_argument("--tokens-per-step", type=int, default=1024)
    parser.add_argument("--row-tokens", type=int, nargs="+", default=[256, 512, 1024])
    parser.add_argument("--precision", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--steps", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    student = Student(arguments.model, TrainerSection(precision=arguments.precision))
    # The longest sample is half as long again as the mean, and must fit the shortest row.
    content = tuple(samples(total=arguments.tokens_per_step, mean=arguments.sample_tokens))
    for length in arguments.row_tokens:
        for attention in (PER_SAMPLE, "sdpa"):
            student.attend(attention)
            rates = measure(student, pack(content, length=length), steps=arguments.steps)
            print(
                json.dumps({"attention": attention, "row_tokens": length, "threads": arguments.threads, **rates}),
                flush=True,
            )


if __name__ == "__main__":
    main()
