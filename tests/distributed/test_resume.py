"""What one world saves, a world of another size goes on with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jupiter.config.sections import TrainerSection
from tests.distributed.launch import Outcome, settings, train

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

MIDDLE, LAST = 4, 8


@pytest.fixture(
    scope="module", params=[{}, {"adapter": "lora", "adapter_rank": 4}], ids=["every weight learns", "lora"]
)
def trainer(request: pytest.FixtureRequest) -> TrainerSection:
    changes: dict[str, Any] = request.param
    return settings(**changes)


@pytest.fixture(scope="module")
def half(trainer: TrainerSection, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Outcome]:
    """What one process and two have saved in the middle, by their number."""
    place = tmp_path_factory.mktemp("half")
    return {
        count: train(tiny, place / str(count), processes=count, steps=(0, MIDDLE), trainer=trainer) for count in (1, 2)
    }


@pytest.fixture(scope="module")
def whole(trainer: TrainerSection, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The end of one process that never stopped."""
    return train(tiny, tmp_path_factory.mktemp("whole") / "1", processes=1, steps=(0, LAST), trainer=trainer)


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_a_run_goes_on_in_a_world_of_another_size(
    before: int,
    after: int,
    half: dict[int, Outcome],
    whole: Outcome,
    trainer: TrainerSection,
    tiny: Path,
    tmp_path: Path,
) -> None:
    went_on = train(tiny, tmp_path / "on", processes=after, steps=(MIDDLE, LAST), resume=half[before], trainer=trainer)
    assert went_on.losses == pytest.approx(whole.losses[MIDDLE:], rel=1e-6)
    mine, other = went_on.tensors(), whole.tensors()
    assert mine.keys() == other.keys()
    assert max(float((tensor - other[name]).abs().max()) for name, tensor in mine.items()) < 1e-5


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_nothing_is_lost_on_the_way_into_another_world(
    before: int, after: int, half: dict[int, Outcome], trainer: TrainerSection, tiny: Path, tmp_path: Path
) -> None:
    """Taken up and saved without a step: the same bits."""
    import torch

    passed_on = train(
        tiny, tmp_path / "on", processes=after, steps=(MIDDLE, MIDDLE), resume=half[before], trainer=trainer
    )
    mine, other = passed_on.tensors(), half[before].tensors()
    assert mine.keys() == other.keys()
    assert all(torch.equal(tensor, other[name]) for name, tensor in mine.items())


def test_two_processes_that_were_stopped_are_bit_equal_to_two_that_were_not(
    half: dict[int, Outcome], trainer: TrainerSection, tiny: Path, tmp_path: Path
) -> None:
    import torch

    whole = train(tiny, tmp_path / "whole", processes=2, steps=(0, LAST), trainer=trainer)
    went_on = train(tiny, tmp_path / "on", processes=2, steps=(MIDDLE, LAST), resume=half[2], trainer=trainer)
    assert went_on.losses == whole.losses[MIDDLE:]
    mine, other = went_on.tensors(), whole.tensors()
    assert all(torch.equal(tensor, other[name]) for name, tensor in mine.items())
