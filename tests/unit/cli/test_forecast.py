"""What is said about the time that is left: measured, or said not to be."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupiter.cli.forecast import Forecast
from jupiter.cli.stopwatch import Stopwatch
from jupiter.cli.view import LINE_INTERVAL_S, LineView
from tests.unit.cli.test_progress import evaluation, stage, status

STEP = "step 140 against generator v1"


def examining(state: str, **changes: Any) -> dict[str, Any]:
    return stage("evaluation", state=state, detail=STEP, unit="items", **changes)


def with_evaluation(found: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return status(stages=[stage("training"), found], **changes)


def test_a_stage_without_a_rate_is_timed_from_status_to_status() -> None:
    stopwatch = Stopwatch()
    reading: dict[str, Any] = {"name": "curation", "state": "reading", "total": 781, "unit": "documents"}
    first = stopwatch.timed(status(stages=[stage(**reading, done=0)]), now_s=100.0)
    assert first["stages"][0]["eta_s"] is None
    [later] = stopwatch.timed(status(stages=[stage(**reading, done=256)]), now_s=102.0)["stages"]
    assert later["rate_per_s"] == pytest.approx(128)
    assert later["eta_s"] == pytest.approx((781 - 256) / 128)


def test_the_stages_own_rate_is_left_as_it_is() -> None:
    stopwatch = Stopwatch()
    for now_s, done in ((0.0, 1), (10.0, 50)):
        said = stage(done=done, total=100, rate_per_s=7.0, eta_s=3.0)
        [timed] = stopwatch.timed(status(stages=[said]), now_s=now_s)["stages"]
        assert timed == said


def test_the_next_batch_is_timed_anew() -> None:
    stopwatch = Stopwatch()
    curating: dict[str, Any] = {"name": "curation", "state": "curating", "total": 128}
    for now_s, done in ((0.0, 0), (2.0, 128), (60.0, 0)):
        [timed] = stopwatch.timed(status(stages=[stage(**curating, done=done)]), now_s=now_s)["stages"]
        assert timed["eta_s"] is None
    [timed] = stopwatch.timed(status(stages=[stage(**curating, done=64)]), now_s=62.0)["stages"]
    assert timed["eta_s"] == pytest.approx(2.0)


@given(
    st.lists(st.tuples(st.floats(0.01, 100), st.integers(0, 50)), min_size=1, max_size=20),
    st.integers(1, 50),
)
def test_a_timed_rate_is_never_negative_and_never_of_less_than_a_second(
    seen: list[tuple[float, int]], total: int
) -> None:
    stopwatch, now_s = Stopwatch(), 0.0
    for pause_s, done in seen:
        now_s += pause_s
        [timed] = stopwatch.timed(status(stages=[stage(done=min(done, total), total=total)]), now_s=now_s)["stages"]
        if timed["rate_per_s"] is not None:
            assert timed["rate_per_s"] > 0
            assert timed["eta_s"] > 0


def test_nothing_is_forecast_before_anything_was_timed() -> None:
    forecast = Forecast()
    assert forecast.line(status(next_evaluation=None), now_s=0.0) is None
    coming = {"step": 140, "current_step": 1, "eta_s": None}
    assert (
        forecast.line(status(next_evaluation=coming), now_s=1.0)
        == "next evaluation at step 140 (now 1): no step was timed yet"
    )
    assert forecast.line(status(), now_s=2.0) == (
        "next evaluation at step 100 (now 40) in about 2 min 00 s; how long it takes is not timed yet"
    )


def test_an_evaluation_that_was_timed_tells_when_the_next_verdict_comes() -> None:
    forecast = Forecast()
    for now_s, state in ((0.0, "idle"), (10.0, "loading"), (20.0, "evaluating"), (100.0, "evaluating")):
        forecast.line(with_evaluation(examining(state)), now_s=now_s)
    assert forecast.line(with_evaluation(examining("idle")), now_s=190.0) == (
        "next evaluation at step 100 (now 40) in about 2 min 00 s, its verdict in about 5 min 00 s: "
        "the last evaluation took 3 min 00 s"
    )


def test_loading_that_came_to_nothing_is_no_evaluation() -> None:
    forecast = Forecast()
    for now_s, state in ((0.0, "loading"), (50.0, "idle")):
        line = forecast.line(with_evaluation(examining(state)), now_s=now_s)
    assert line is not None
    assert "not timed yet" in line


def test_each_step_to_a_verdict_says_what_is_left_of_it() -> None:
    forecast = Forecast()
    assert forecast.line(with_evaluation(examining("evaluating")), now_s=0.0) == (
        f"evaluation of {STEP}: nothing timed yet"
    )
    running: dict[str, Any] = {"done": 500, "total": 1500, "rate_per_s": 5.0, "eta_s": 200.0}
    assert forecast.line(with_evaluation(examining("evaluating", **running)), now_s=9.0) == (
        f"evaluation of {STEP}: about 3 min 20 s left; "
        "should it pass, the sealed half takes up to about 5 min 00 s more"
    )
    assert forecast.line(with_evaluation(examining("confirming", **running)), now_s=9.0) == (
        f"sealed half, {STEP}: about 3 min 20 s left, then a shadow batch and the verdict"
    )
    waiting = {"last_evaluation": evaluation(stage="shadow")}
    assert forecast.line(with_evaluation(examining("idle"), **waiting), now_s=9.0) == (
        "shadow batch of evaluation 3, the last step before its verdict"
    )
    generating = stage(done=64, total=128, rate_per_s=4.0, eta_s=16.0, detail="the shadow batch of step 140")
    assert forecast.line(status(stages=[generating, examining("idle")], **waiting), now_s=9.0) == (
        "shadow batch of evaluation 3, the last step before its verdict: about 16 s until the generator is done with "
        "the shadow batch of step 140"
    )


def test_plain_lines_tell_the_time_left_now_and_then() -> None:
    written: list[str] = []
    now_s = 0.0
    view = LineView(write=written.append, clock=lambda: now_s)
    seconds = int(4 * LINE_INTERVAL_S)
    for second in range(seconds):
        now_s = float(second)
        coming = {"step": 140, "current_step": 40, "eta_s": 600.0 - second}
        reading = stage("curation", state="reading", done=second, total=600, unit="documents")
        view.update(status(stages=[reading], next_evaluation=coming))
    forecasts = [line for line in written if "next evaluation at step 140" in line]
    assert len(forecasts) == 4
    assert "in about 10 min" in forecasts[0]
    assert "in about 9 min 15 s" in forecasts[-1]
    reads = [line for line in written if "curation: reading" in line]
    assert "left" not in reads[0]
    assert all("1/s" in line and "left" in line for line in reads[1:])
    assert len(reads) == 4
