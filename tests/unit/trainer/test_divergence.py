"""When training must stop."""

from __future__ import annotations

import pytest

from jupiter.trainer.divergence import WINDOW_STEPS, Diverged, LossGuard


@pytest.mark.parametrize(("loss", "norm"), [(float("nan"), 1.0), (float("inf"), 1.0), (2.0, float("nan"))])
def test_what_is_not_a_number_stops_at_once(loss: float, norm: float) -> None:
    with pytest.raises(Diverged, match="not finite"):
        LossGuard(nats=2).check(step=1, loss=loss, gradient_norm=norm)


def test_a_rise_above_the_beginning_stops_and_a_rise_above_the_best_does_not() -> None:
    guard = LossGuard(nats=2)
    for step, loss in enumerate([3.0] * WINDOW_STEPS + [0.1] * 100 + [4.9] * WINDOW_STEPS):
        guard.check(step=step, loss=loss, gradient_norm=1)
    for step in range(1000, 999 + WINDOW_STEPS):
        guard.check(step=step, loss=4.9, gradient_norm=1)
    with pytest.raises(Diverged, match=r"nats above the run's first"):
        guard.check(step=2000, loss=8, gradient_norm=1)


def test_one_bad_step_is_no_divergence() -> None:
    guard = LossGuard(nats=2)
    for step, loss in enumerate([3.0] * 50 + [30.0] + [3.0] * 50):
        guard.check(step=step, loss=loss, gradient_norm=1)


def test_a_restored_guard_remembers() -> None:
    guard, restored = LossGuard(nats=2), LossGuard(nats=2)
    for step in range(WINDOW_STEPS):
        guard.check(step=step, loss=3.0, gradient_norm=1)
    restored.restore(guard.state())
    assert restored.state() == guard.state()
