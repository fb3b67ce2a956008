"""A tiny random Llama with its own tokenizer and chat template, made in well under a second.

Every test that needs a model makes one here: real transformers code paths, no download, 0.2 M parameters.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["make_tiny_model", "tiny_texts"]

VOCABULARY = 512
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tiny_texts() -> list[str]:
    """Return real English text that every Python has: docstrings of four standard modules."""
    texts = []
    for module in (argparse, json, pathlib, textwrap):
        texts += [module.__doc__ or ""]
        texts += [item.__doc__ for item in vars(module).values() if isinstance(getattr(item, "__doc__", None), str)]
    return texts


def make_tiny_model(
    directory: Path,
    *,
    seed: int = 0,
    hidden: int = 48,
    layers: int = 2,
    context: int = 2048,
    tied: bool = True,
    words: Sequence[str] = (),
) -> Path:
    """Save a random Llama (bfloat16, tied embeddings like SmolLM2) in Hugging Face layout; another seed, other weights.

    The weights are drawn wide enough that two seeds differ plainly in their log-probabilities. `words` are texts whose
    words shall be tokens, as far as half as many tokens more allow. Returns `directory`.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    # Spinning threads of parallel test workers slow each other down tenfold; a tiny model gains nothing from them.
    torch.set_num_threads(1)
    llama: Any = LlamaForCausalLM
    tokenizer = _train_tokenizer(words)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        initializer_range=0.3,
        tie_word_embeddings=tied,
        bos_token_id=tokenizer.convert_tokens_to_ids("<|im_start|>"),
        eos_token_id=tokenizer.convert_tokens_to_ids("<|im_end|>"),
        pad_token_id=tokenizer.convert_tokens_to_ids("<|im_end|>"),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = llama(config)
    directory.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def _train_tokenizer(words: Sequence[str]) -> Any:
    """Train a byte-level BPE, so that any text survives a round trip, with the special tokens of SmolLM2."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    fast_tokenizer: Any = PreTrainedTokenizerFast
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY + VOCABULARY // 2 * bool(words),
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([*tiny_texts(), *words], trainer)
    return fast_tokenizer(
        tokenizer_object=backend,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
    )
