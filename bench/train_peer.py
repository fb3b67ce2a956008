"""How fast this machine trains, and what is learned: this trainer beside TRL's SFTTrainer, on the same samples.

    python -m venv /tmp/peer && /tmp/peer/bin/pip install -c constraints.txt '.[trainer,bench]'
    /tmp/peer/bin/python bench/train_peer.py MODEL_DIRECTORY [--rounds 2] [--steps 8] [--samples-per-step 16]

    on a GPU:  … --precision bfloat16 --compile --samples-per-step 256 --row-tokens 4096 --peer-batch 32

Samples are docstrings of this interpreter's library as questions and answers, the loss on the answers. Every step has
the same samples in the same order on both sides; optimizer, learning rate, clipping and precision are the same too:
float32 weights, fused AdamW, autocast. This trainer packs a step's samples into rows; TRL pads them, longest first in
each of its batches, or with `--peer-padding-free` packs them as well (it asks for flash attention then). The sides take
turns in processes of their own, so that a busy machine slows both alike.

Prints JSON, one line per side and round. Tokens are those of samples, padding not counted, in the time of the steps
after the first two.
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jupiter.config.sections import TrainerSection
from jupiter.trainer.packing import Encoded, pack

LEARNING_RATE = 1e-4
WEIGHT_DECAY = 0.01
GRADIENT_CLIP = 1.0
WARM_STEPS = 2
"""First steps, in which memory is allocated and code compiled: not timed."""
SIDES = ("jupiter", "trl")


def questions_and_answers() -> Iterator[tuple[str, str]]:
    """Yield a question about each documented function of the standard library's source, and its docstring."""
    warnings.simplefilter("ignore")
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
                yield f"Question: What does {path.stem}.{node.name} do?\nAnswer:", f" {text}"


def samples(tokenizer: Any, *, count: int, tokens_max: int) -> list[Encoded]:
    drawn = list(questions_and_answers())
    random.Random(0).shuffle(drawn)  # noqa: S311 - a benchmark
    encoded = []
    for number, (question, answer) in enumerate(drawn):
        prompt = tokenizer(question)["input_ids"]
        tokens = (*prompt, *tokenizer(answer, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id)
        if len(prompt) < min(len(tokens), tokens_max):
            encoded.append(Encoded(sample_id=str(number), tokens=tokens[:tokens_max], learned_from=len(prompt)))
    if len(encoded) < count:
        raise SystemExit(f"there are {len(encoded)} samples, {count} were asked for: fewer steps or samples per step")
    return encoded[:count]


def steps_of(encoded: Sequence[Encoded], *, size: int) -> list[Sequence[Encoded]]:
    return [encoded[begin : begin + size] for begin in range(0, len(encoded), size)]


def train_ours(arguments: argparse.Namespace, steps: list[Sequence[Encoded]]) -> tuple[list[float], list[float]]:
    """Return the loss and the seconds of each step."""
    from jupiter.trainer.student import Student

    settings = TrainerSection(
        precision=arguments.precision,
        compile=arguments.compile,
        learning_rate=LEARNING_RATE,
        warmup_steps=0,
        weight_decay=WEIGHT_DECAY,
        gradient_clip=GRADIENT_CLIP,
    )
    student = Student(arguments.model, settings)
    losses, seconds = [], []
    for number, step in enumerate(steps):
        began = time.perf_counter()
        losses.append(student.step(pack(step, length=arguments.row_tokens), number=number).loss)
        seconds.append(time.perf_counter() - began)
    return losses, seconds


def train_theirs(arguments: argparse.Namespace, steps: list[Sequence[Encoded]]) -> tuple[list[float], list[float]]:
    """Return the loss and the seconds of each step."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    began: list[float] = []
    ended: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            began.append(time.perf_counter())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            ended.append(time.perf_counter())

    auto: Any = AutoModelForCausalLM
    options = {"attn_implementation": "flash_attention_2"} if arguments.peer_padding_free else {}
    model = auto.from_pretrained(arguments.model, dtype=torch.float32, **options)
    batch = arguments.peer_batch or arguments.samples_per_step
    rows = [
        {
            "input_ids": list(sample.tokens),
            "labels": [-100] * sample.learned_from + list(sample.tokens[sample.learned_from :]),
        }
        for step in steps
        for sample in sorted(step, key=lambda sample: -len(sample.tokens))
    ]
    with tempfile.TemporaryDirectory() as scratch:
        config = SFTConfig(
            output_dir=scratch,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=arguments.samples_per_step // batch,
            max_steps=len(steps),
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="constant",
            weight_decay=WEIGHT_DECAY,
            max_grad_norm=GRADIENT_CLIP,
            adam_beta2=0.95,
            optim="adamw_torch_fused",
            bf16=arguments.precision == "bfloat16",
            torch_compile=arguments.compile,
            gradient_checkpointing=False,
            max_length=None,
            padding_free=arguments.peer_padding_free,
            train_sampling_strategy="sequential",
            logging_steps=1,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),
        )
        trainer = SFTTrainer(
            model=model,
            args=config,
            train_dataset=Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(arguments.model),
            callbacks=[Clock()],
        )
        trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return losses, [after - before for before, after in zip(began, ended, strict=True)]


def run_side(arguments: argparse.Namespace) -> dict[str, Any]:
    import torch
    from transformers import AutoTokenizer

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    count = arguments.steps * arguments.samples_per_step
    encoded = samples(AutoTokenizer.from_pretrained(arguments.model), count=count, tokens_max=arguments.sample_tokens)
    steps = steps_of(encoded, size=arguments.samples_per_step)
    train = train_ours if arguments.side == "jupiter" else train_theirs
    losses, seconds = train(arguments, steps)
    rates = [sum(len(sample.tokens) for sample in step) / taken for step, taken in zip(steps, seconds, strict=True)][
        WARM_STEPS:
    ]
    return {
        "trainer": arguments.side,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "precision": arguments.precision,
        "compile": arguments.compile,
        "tokens_per_s": round(statistics.median(rates), 1),
        "tokens_per_s_best": round(max(rates), 1),
        "tokens": sum(len(sample.tokens) for sample in encoded),
        "losses": [round(loss, 4) for loss in losses],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--samples-per-step", type=int, default=16)
    parser.add_argument("--sample-tokens", type=int, default=512, help="where a sample is cut")
    parser.add_argument("--row-tokens", type=int, default=512, help="this trainer's rows")
    parser.add_argument("--peer-batch", type=int, default=0, help="TRL's batch; 0: all samples of a step")
    parser.add_argument("--peer-padding-free", action="store_true")
    parser.add_argument("--precision", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--side", choices=SIDES, help="only this one, in this process")
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(run_side(arguments)), flush=True)
        return
    for _ in range(arguments.rounds):
        for side in SIDES:
            done = subprocess.run(
                [sys.executable, __file__, *sys.argv[1:], "--side", side], check=True, stdout=subprocess.PIPE, text=True
            )
            print(done.stdout.strip().splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
