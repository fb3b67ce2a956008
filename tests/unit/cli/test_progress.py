"""How progress is worded, and when a plain line is worth writing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupiter.cli.progress import RENEWAL, Processes, duration, headline, milestones, panel, stage_line
from jupiter.cli.table import table
from jupiter.cli.view import LineView


def stage(name: str = "generation", **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "state": "generating",
        "detail": "",
        "done": None,
        "total": None,
        "unit": "",
        "rate_per_s": None,
        "eta_s": None,
        "instances": (),
        "figures": {},
        **changes,
    }


def status(**changes: Any) -> dict[str, Any]:
    return {
        "domain": "python_stdlib",
        "generator": {"version": 2, "served_by": ["generator"]},
        "stages": [stage()],
        "next_evaluation": {"step": 100, "current_step": 40, "eta_s": 120.0},
        "waits_for": [],
        "accounting": {"lost": 0},
        "documents_training": 1_500,
        "documents_held_out": 300,
        "samples_generated": 640,
        "samples_accepted": 400,
        "tokens": 10_000,
        "real_tokens": 3_500,
        "last_evaluation": None,
        "not_evaluated": [],
        "sealed_half": None,
        "pending_approval": [],
        "refused": {},
        "dead_letters": 0,
        "diversity_alarm": None,
        "plateau": [],
        **changes,
    }


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59, "59 s"), (61, "1 min 01 s"), (1800, "30 min"), (7_500, "2 h 05 min"), (100_000, "1 d 3 h")],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@given(st.floats(min_value=0, max_value=1e9))
def test_a_duration_never_shows_sixty_of_anything(seconds: float) -> None:
    assert not {"60 s", "60 min", "24 h"} & {duration(seconds)}


def test_a_stage_says_how_far_how_fast_and_how_long_it_is() -> None:
    line = stage_line(stage(done=128, total=1256, unit="samples", rate_per_s=12.3, eta_s=91.7, detail="batch 7"))
    assert line == "generation: generating · 128/1,256 samples, 12/s, 1 min 32 s left · batch 7"


def test_the_headline_tells_versions_documents_samples_and_the_real_ratio() -> None:
    assert headline(status()) == (
        "domain python_stdlib · generator v2 (1 serving) · 1,800 documents · 400 of 640 samples accepted"
        " · 10,000 tokens (35% real)"
    )
    assert "no generator yet" in headline(status(generator=None, tokens=0, samples_generated=0))


def test_what_needs_a_hand_is_said() -> None:
    lines = milestones(
        status(
            pending_approval=["a"], dead_letters=3, refused={"b" * 64: "weights are corrupt"}, waits_for=["a benchmark"]
        )
    )
    assert lines == [
        "next evaluation at step 100 (now 40, 2 min 00 s left)",
        "waits for a benchmark",
        "1 better checkpoint waits for you: `jupiter promote`",
        "evaluation bbbbbbbbbb was not promoted: weights are corrupt",
        "3 dead letters: `jupiter dead-letters list`",
    ]


def evaluation(**changes: Any) -> dict[str, Any]:
    return {
        "epoch": 3,
        "candidate_score": 0.61,
        "generator_score": 0.52,
        "difference": 0.09,
        "ci_low": 0.04,
        "ci_high": 0.14,
        "decision": None,
        "reasons": [],
        "stage": "confirmation",
        "stage_detail": "the sealed half is scored (opening 2)",
        "confirmation": None,
        "shadow": None,
        **changes,
    }


def test_an_evaluation_says_what_it_waits_for_and_what_each_stage_said() -> None:
    head = "evaluation 3: 0.610 against 0.520 (+0.090, 95 % +0.040 … +0.140):"
    assert milestones(status(next_evaluation=None, last_evaluation=evaluation())) == [
        f"{head} it passed the screen, the sealed half is scored (opening 2)"
    ]
    sealed = {"opening": 2, "items": 250, "candidate_score": 0.6, "generator_score": 0.53, "difference": 0.07}
    settled = evaluation(
        decision="HOLD",
        stage="settled",
        stage_detail="",
        reasons=["shadow batch: 10 of 64"],
        confirmation=sealed,
        shadow={"items": 64, "candidate_accepted": 10, "incumbent_accepted": 40},
    )
    assert milestones(status(next_evaluation=None, last_evaluation=settled)) == [
        f"{head} HOLD",
        "  sealed half, opening 2: 0.600 against 0.530 (+0.070) on 250 items",
        "  as a generator: 10 of 64 accepted, 40 of the generator's",
        "  shadow batch: 10 of 64",
    ]


def test_an_alarm_and_a_plateau_are_said() -> None:
    alarm = {"shard_id": "a", "generator_version": 2, "alarms": ["repeats within a batch are 0.950"]}
    lines = milestones(status(next_evaluation=None, diversity_alarm=alarm, plateau=["plateau: no gain", "more data"]))
    assert lines == [
        "DIVERSITY ALARM since a batch of v2: promotions pause, more real data is mixed in",
        "  repeats within a batch are 0.950",
        "plateau: no gain",
        "more data",
    ]


def test_a_checkpoint_that_could_not_be_evaluated_is_said_with_the_reason() -> None:
    failed = [
        {"checkpoint_id": "c", "run": "run1", "step": step, "evaluation_id": "e", "reasons": [f"letter {step}"]}
        for step in (100, 1_200)
    ]
    assert milestones(status(next_evaluation=None, not_evaluated=failed)) == [
        "step 1,200 of run1 could not be evaluated, 1 before it: INVALID",
        "  letter 1200",
    ]


@pytest.mark.parametrize(
    ("used", "more"),
    [
        (0, ""),
        (9, ""),
        (
            10,
            f": nothing is promoted on this benchmark any more; {RENEWAL}",
        ),
    ],
)
def test_the_openings_of_the_sealed_half_are_said(used: int, more: str) -> None:
    half = {"openings": used, "openings_max": 10}
    line = f"sealed half: {used} of 10 openings used{more}"
    assert milestones(status(next_evaluation=None, sealed_half=half)) == [line]


def test_a_plain_line_is_written_when_a_stage_changes_and_not_for_every_count() -> None:
    written: list[str] = []
    view = LineView(write=written.append)
    view.update(None)
    for done in range(5):
        view.update(status(stages=[stage(done=done, total=5)]))
    view.update(status(stages=[stage(state="waiting")]))
    assert [line.split("] ")[1].split(" · ")[0] for line in written] == [
        "generation: generating",
        "next evaluation at step 100 (now 40) in about 2 min 00 s; how long it takes is not timed yet",
        "domain python_stdlib",
        "generation: waiting",
    ]


def test_the_live_panel_shows_dead_processes_with_the_reason() -> None:
    from rich.console import Console

    console = Console(width=120)
    processes = Processes({"nats": ("ready", ""), "trainer": ("not ready", "the bucket is full")})
    with console.capture() as capture:
        console.print(panel(status(), processes=processes, notices=("trainer died",), title="jupiter up"))
    drawn = capture.get()
    for text in ("✓ nats", "✗ trainer", "trainer: the bucket is full", "generation", "trainer died"):
        assert text in drawn


def test_a_table_aligns_text_left_and_numbers_right() -> None:
    assert table(("name", "n"), [("a", 1), ("long", 100), ("none", None)]) == ("name    n\na       1\nlong  100\nnone")
