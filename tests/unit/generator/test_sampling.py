"""The laws of choosing a token."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupiter.generator.sampling import Draws, choose


def logits_of(rows: list[list[float]]) -> object:
    torch = pytest.importorskip("torch")
    return torch.tensor(rows)


logit_rows = st.lists(st.lists(st.floats(-20, 20, width=32), min_size=5, max_size=5), min_size=1, max_size=4)


@given(rows=logit_rows, draw=st.floats(0, 1, exclude_max=True), top_p=st.floats(0.05, 1), temperature=st.floats(0.1, 5))
def test_the_choice_lies_in_the_nucleus(rows: list[list[float]], draw: float, top_p: float, temperature: float) -> None:
    import torch

    logits = torch.tensor(rows)
    draws = torch.full((len(rows),), draw, dtype=torch.float64)
    chosen = choose(logits, temperature=temperature, top_p=top_p, draws=draws).tolist()
    for row, token in zip(rows, chosen, strict=True):
        probabilities = (torch.tensor(row) / temperature).double().softmax(dim=-1)
        likelier = float(probabilities[probabilities > probabilities[token]].sum())
        assert likelier < top_p + 1e-6


@given(rows=logit_rows, draw=st.floats(0, 1, exclude_max=True))
def test_greedy_ignores_the_draw(rows: list[list[float]], draw: float) -> None:
    import torch

    draws = torch.full((len(rows),), draw, dtype=torch.float64)
    chosen = choose(torch.tensor(rows), temperature=0, top_p=1, draws=draws).tolist()
    assert [row[token] for row, token in zip(rows, chosen, strict=True)] == [max(row) for row in rows]


def test_frequencies_follow_the_probabilities() -> None:
    import torch

    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    count = 20_000
    draws = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    chosen = choose(probabilities.log().repeat(count, 1), temperature=1, top_p=1, draws=draws)
    seen = torch.bincount(chosen, minlength=4) / count
    assert torch.allclose(seen, probabilities, atol=1e-3)


def test_a_flat_vocabulary_is_sampled_whole() -> None:
    """More tokens than the shortcut looks at are in the nucleus: the full sort must be taken."""
    import torch

    count = 4_000
    draws = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    chosen = choose(torch.zeros(count, 2_000), temperature=1, top_p=1, draws=draws)
    assert len(set(chosen.tolist())) > 1_900


def test_draws_depend_on_seed_and_step_alone() -> None:
    together = Draws([3, 1 << 62, 5], steps=4)
    alone = Draws([1 << 62], steps=9)
    for step in range(4):
        assert together.at(step, [1]).tolist() == alone.at(step, [0]).tolist()
    assert together.at(2, [2, 0]).tolist() == together.at(2, [0, 1, 2]).tolist()[::-2]
