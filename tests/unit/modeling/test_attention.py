"""Attention by matrix products computes what transformers' own does, and is not used where it would not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch  # noqa: TID253 - tensors are what is tested here

from jupiter.modeling import load_model
from jupiter.modeling.attention import GROUPED, use_grouped_attention
from tests.tiny_model import make_tiny_model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


def random_model(config: Any) -> Any:
    from transformers import AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return auto.from_config(config).eval()


def logits_of(model: Any) -> torch.Tensor:
    """Run two prompts of unequal length, padded on the left, then three more tokens on the cache."""
    ids = torch.arange(26).reshape(2, 13) % 400 + 3
    mask = torch.ones_like(ids)
    mask[0, :5] = 0
    more = torch.tensor([[7, 8, 9], [11, 12, 13]])
    with torch.inference_mode():
        first = model(input_ids=ids, attention_mask=mask, position_ids=(mask.cumsum(-1) - 1).clamp(min=0))
        whole = torch.cat([mask, torch.ones_like(more)], dim=1)
        second = model(
            input_ids=more,
            attention_mask=whole,
            position_ids=(whole.cumsum(-1) - 1)[:, -3:],
            past_key_values=first.past_key_values,
        )
    return torch.cat([first.logits[:, -1:], second.logits], dim=1)


def test_a_loaded_model_attends_by_groups_and_gives_what_sdpa_gives(tiny: Path) -> None:
    model, _ = load_model(tiny, dtype="float32")
    grouped = logits_of(model)
    assert model.config._attn_implementation == GROUPED
    model.set_attn_implementation("sdpa")
    torch.testing.assert_close(grouped, logits_of(model), rtol=1e-4, atol=1e-4)


def test_a_sliding_window_comes_in_by_the_mask() -> None:
    from transformers import MistralConfig

    config = MistralConfig(
        vocab_size=512,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=4,
    )
    model = random_model(config)
    expected = logits_of(model)
    assert use_grouped_attention(model)
    torch.testing.assert_close(logits_of(model), expected, rtol=1e-4, atol=1e-4)


def test_a_model_with_soft_caps_keeps_its_own_attention() -> None:
    from transformers import Gemma2Config

    config = Gemma2Config(
        vocab_size=512,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        attn_logit_softcapping=5.0,
    )
    model = random_model(config)
    before, expected = model.config._attn_implementation, logits_of(model)
    assert not use_grouped_attention(model)
    assert model.config._attn_implementation == before
    torch.testing.assert_close(logits_of(model), expected)


def test_for_training_the_model_keeps_its_own_attention(tiny: Path) -> None:
    model, _ = load_model(tiny, dtype="float32", inference=False)
    assert model.config._attn_implementation == "sdpa"
