"""The gate's promise, counted: simulated runs of twenty looks each, through the public function.

2,000 runs where it is hardest to keep (binary scores, every look another checkpoint), fewer where there is more room.

500 items, their difficulty shared by the two models (latent correlation .5), the customer's settings as they are.
docs/verdict.md shows the figures; `jupiter gate power` makes them.
"""

from __future__ import annotations

import json

import pytest

from jupiter.cli import run
from jupiter.config.sections import SelfImprovementSection
from jupiter.controller.gate.simulation import Found, Scenario, Scoring, simulate

RUNS, RUNS_WITH_ROOM = 2_000, 600
CARRY = 0.7
"""Looks that resemble each other, as checkpoints some thousand steps apart do."""
WRONG_MAX, POWER_MIN = 0.05, 0.80

counted = pytest.mark.timeout(600)


def found(*, effect: float, scoring: Scoring, runs: int, carry: float = 0.0) -> Found:
    """What comes of the customer's defaults."""
    config = SelfImprovementSection()
    assert (config.benchmark_samples, config.improvement_threshold, config.confidence) == (500, 0.05, 0.95)
    scenario = Scenario(config=config, effect=effect, scoring=scoring, carry=carry, looks=20, correlation=0.5)
    outcome = simulate(scenario, runs=runs, processes=2)
    assert outcome.runs == runs
    return outcome


@pytest.mark.slow
@counted
@pytest.mark.parametrize(
    ("scoring", "carry", "runs"),
    [
        ("binary", 0.0, RUNS),
        ("binary", CARRY, RUNS_WITH_ROOM),
        ("graded", 0.0, RUNS_WITH_ROOM),
        ("graded", CARRY, RUNS_WITH_ROOM),
    ],
)
def test_equal_models_are_promoted_in_one_run_of_twenty_at_most(scoring: Scoring, carry: float, runs: int) -> None:
    outcome = found(effect=0.0, scoring=scoring, carry=carry, runs=runs)
    assert outcome.openings > runs / 10, "the sealed half was hardly ever opened: nothing was tried"
    assert outcome.interval[1] <= WRONG_MAX, f"{outcome.promoted} of {runs}, 95 %: {outcome.interval}"


@pytest.mark.slow
@counted
@pytest.mark.parametrize(("scoring", "runs"), [("binary", RUNS), ("graded", RUNS_WITH_ROOM)])
def test_a_gain_of_eight_points_is_promoted_in_four_runs_of_five_at_least(scoring: Scoring, runs: int) -> None:
    outcome = found(effect=0.08, scoring=scoring, runs=runs)
    assert outcome.interval[0] >= POWER_MIN, f"{outcome.promoted} of {runs}, 95 %: {outcome.interval}"


def test_the_same_seed_finds_the_same_in_any_number_of_processes() -> None:
    scenario = Scenario(config=SelfImprovementSection(), effect=0.08, looks=3)
    one, two = (simulate(scenario, runs=60, processes=processes) for processes in (1, 2))
    assert one == two
    assert 0 < one.promoted < one.runs


def test_what_is_simulated_is_as_good_as_it_is_said_to_be() -> None:
    """The effect is one of the mean score, binary or graded; half of the mark is what the generator reaches."""
    from jupiter.controller.gate.simulation import _looks

    for scoring in ("binary", "graded"):
        scenario = Scenario(config=SelfImprovementSection(), effect=0.08, scoring=scoring, looks=1)
        papers = [next(iter(_looks(scenario, number))) for number in range(60)]
        means = [
            sum(sum(side) for side in sides) / sum(len(side) for side in sides)
            for sides in ([paper.candidate for paper in papers], [paper.generator for paper in papers])
        ]
        assert means[0] == pytest.approx(0.58, abs=0.015)
        assert means[1] == pytest.approx(0.50, abs=0.015)


def test_the_command_shows_errors_of_both_sorts(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--effect", "0.2", "--samples", "300", "--looks", "2", "--runs", "8"]
    assert run(["gate", "power", *options]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "8 runs, 2 looks, 300 items, binary scores"
    assert told[1].startswith("wrong promotions, models equal: 0.0% (95 %: 0.0% … ")
    assert told[2].startswith("promoted at a true +0.200: ")
    assert run(["gate", "power", *options, "--json", "--scores", "graded", "--carry", "0.5"]) == 0
    equal, better = json.loads(capsys.readouterr().out)
    assert (equal["effect"], better["effect"], better["samples"], better["runs"]) == (0.0, 0.2, 300, 8)
    assert better["promoted"] >= 6


def test_samples_too_few_to_be_scored_are_a_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["gate", "power", "--samples", "8", "--runs", "2", "--looks", "1"]) == 2
    told = capsys.readouterr().err
    assert "of 8 samples 2 are in the development half, and none of them measures knowledge" in told
    assert "64 samples are enough" in told


@pytest.mark.parametrize("samples", [20, 60])
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_gate_that_believes_nothing_is_not_called_safe(
    samples: int, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["gate", "power", "--samples", str(samples), "--runs", "4", "--looks", "2", *options]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert f"100% of the looks at {samples} samples are INVALID" in told.err
    assert "most fail 'enough development items', e.g. enough development items: " in told.err
    assert "from >= 4 sources" in told.err
    assert "take 64 --samples or more" in told.err


def test_so_many_samples_as_are_said_to_be_enough_are() -> None:
    config = SelfImprovementSection(benchmark_samples=64)
    assert Scenario(config=config, effect=0.0).samples_min == 64
    looked_at = simulate(Scenario(config=config, effect=0.0, looks=4), runs=50)
    assert looked_at.looks == 200
    assert looked_at.invalid_looks == 0


def test_looks_that_the_gate_did_not_believe_are_counted_by_check() -> None:
    config = SelfImprovementSection(benchmark_samples=40)
    looked_at = simulate(Scenario(config=config, effect=0.0, looks=3), runs=4)
    assert (looked_at.looks, looked_at.invalid_looks) == (12, 12)
    assert looked_at.faults["enough development items"] == 12
    assert looked_at.example.startswith("enough development items: 10 items from 2 sources")


def test_an_effect_that_scores_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match=r"scores begin at \.5"):
        simulate(Scenario(config=SelfImprovementSection(), effect=0.6), runs=1)
