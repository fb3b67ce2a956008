"""Two processes over gloo against one, on the same rows: the same training, whatever it is divided into.

Stated tolerances. float32: sums are added in another order, so each loss within 1e-6 of itself and each weight within
1e-5 after eight steps of 1e-3. bfloat16: rows are cut at other places, so other products are rounded: losses within
0.5 %.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.distributed.launch import settings, train

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

STEPS = (0, 8)


@pytest.mark.parametrize(
    "changes",
    [{}, {"activation_checkpointing": True}, {"adapter": "lora", "adapter_rank": 4}],
    ids=["plain", "checkpointed activations", "lora"],
)
def test_two_processes_train_what_one_trains(changes: dict[str, Any], tiny: Path, tmp_path: Path) -> None:
    one, two = (
        train(tiny, tmp_path / str(processes), processes=processes, steps=STEPS, trainer=settings(**changes))
        for processes in (1, 2)
    )
    assert two.losses == pytest.approx(one.losses, rel=1e-6)
    assert two.norms == pytest.approx(one.norms, rel=1e-5)
    assert one.losses[0] != pytest.approx(one.losses[-1], rel=1e-3), "something is learned"
    for mine, other, tolerance in (
        (one.tensors(), two.tensors(), 1e-5),
        (one.published(), two.published(), 0.01),  # a bfloat16 of about 1 may round the other way
    ):
        assert mine.keys() == other.keys()
        assert (
            max(float((tensor.float() - other[name].float()).abs().max()) for name, tensor in mine.items()) < tolerance
        )


def test_two_processes_train_in_bfloat16_what_one_trains(tiny: Path, tmp_path: Path) -> None:
    one, two = (
        train(tiny, tmp_path / str(count), processes=count, steps=STEPS, trainer=settings(precision="bfloat16"))
        for count in (1, 2)
    )
    assert two.losses == pytest.approx(one.losses, rel=5e-3)


def test_three_processes_go_round_where_rows_do_not(tiny: Path, tmp_path: Path) -> None:
    """Rows are cut, and where nothing can be cut a rank computes one on which nothing is learned."""
    one, three = (train(tiny, tmp_path / str(count), processes=count, steps=(0, 4)) for count in (1, 3))
    assert three.losses == pytest.approx(one.losses, rel=1e-6)
    assert three.norms == pytest.approx(one.norms, rel=1e-5)
