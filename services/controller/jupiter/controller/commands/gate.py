"""`jupiter gate power`: how often the gate is wrong, and how often it finds what is there."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from jupiter.cli import Settings
from jupiter.cli.output import json_option, print_json
from jupiter.errors import JupiterError

if TYPE_CHECKING:
    from jupiter.controller.gate.simulation import Found, Scenario

INVALID_SHARE_MAX = 0.05
"""Of the looks. Beyond it the rates speak of evaluations that the gate does not believe, not of the gate."""


@click.group(name="gate", short_help="Try the gate on models whose difference is known.")
def command() -> None:
    """Try the gate on models whose difference is known, with your thresholds."""


@command.command(name="power", short_help="Simulate false promotions and power.")
@click.option("--effect", type=click.FloatRange(0, 0.49), default=0.05, show_default=True, help="True gain in score.")
@click.option("--samples", type=click.IntRange(8), help="Items of both halves; default: benchmark_samples.")
@click.option(
    "--looks", type=click.IntRange(1), default=20, show_default=True, help="Evaluations, one after the other."
)
@click.option("--runs", type=click.IntRange(1), default=2000, show_default=True, help="Simulated runs of each sort.")
@click.option("--scores", type=click.Choice(["binary", "graded"]), default="binary", show_default=True)
@click.option(
    "--correlation",
    type=click.FloatRange(0, 0.99),
    default=0.5,
    show_default=True,
    help="Of two models' latent ability on one item.",
)
@click.option(
    "--carry",
    type=click.FloatRange(0, 0.99),
    default=0.0,
    show_default=True,
    help="How much a checkpoint resembles the one before.",
)
@click.option("--seed", type=int, default=0, show_default=True)
@json_option
@click.pass_obj
def power(
    settings: Settings,
    *,
    effect: float,
    samples: int | None,
    looks: int,
    runs: int,
    scores: str,
    correlation: float,
    carry: float,
    seed: int,
    as_json: bool,
) -> None:
    """Simulate models of equal ability, and a candidate better by EFFECT, with the very function that decides.

    A promotion of an equal model is wrong. Thresholds come from the configuration, so that you see what
    `benchmark_samples` and `improvement_threshold` do before you freeze a benchmark. Too few samples are an error: a
    gate that calls every look INVALID promotes nobody, and that says nothing of it.
    """
    from jupiter.cli.connection import configuration
    from jupiter.controller.gate.simulation import Scenario, simulate

    section = configuration(settings).self_improvement
    section = section.model_copy(update={"benchmark_samples": samples or section.benchmark_samples})
    try:
        scenarios = [
            Scenario(
                config=section,
                effect=true_gain,
                looks=looks,
                scoring="binary" if scores == "binary" else "graded",
                correlation=correlation,
                carry=carry,
                seed=seed,
            )
            for true_gain in sorted({0.0, effect})
        ]
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    with click.progressbar(length=runs * len(scenarios), label="simulating", file=sys.stderr) as bar:
        found = [
            simulate(scenario, runs=runs, processes=os.cpu_count() or 1, progress=bar.update) for scenario in scenarios
        ]
    for pair in zip(scenarios, found, strict=True):
        _believed(*pair)
    lines = [_figures(*pair) for pair in zip(scenarios, found, strict=True)]
    if as_json:
        print_json(lines)
        return
    click.echo(f"{runs} runs, {looks} looks, {section.benchmark_samples} items, {scores} scores")
    for line in lines:
        low, high = line["interval_95"]
        what = f"promoted at a true {line['effect']:+.3f}" if line["effect"] else "wrong promotions, models equal"
        click.echo(
            f"{what}: {line['rate']:.1%} (95 %: {low:.1%} … {high:.1%}), "
            f"{line['openings_per_run']:.1f} openings and {line['looks_per_run']:.1f} looks a run"
            + (f"; {line['invalid_looks']} looks INVALID: {', '.join(line['faults'])}" if line["faults"] else "")
        )


def _believed(scenario: Scenario, found: Found) -> None:
    """Refuse to call a gate safe that hardly saw anything it believed. Raises JupiterError."""
    share = found.invalid_looks / found.looks
    if share <= INVALID_SHARE_MAX:
        return
    samples = scenario.settings.benchmark_samples
    enough = samples >= scenario.samples_min
    what = (
        "choose other --samples or a smaller --effect" if enough else f"take {scenario.samples_min} --samples or more"
    )
    raise JupiterError(
        f"{share:.0%} of the looks at {samples} samples are INVALID, so no rate would say anything about the gate; "
        f"most fail {max(found.faults, key=lambda name: found.faults[name])!r}, e.g. {found.example}; {what}"
    )


def _figures(scenario: Scenario, found: Found) -> dict[str, Any]:
    return {
        "effect": scenario.effect,
        "samples": scenario.settings.benchmark_samples,
        "looks": scenario.looks,
        "runs": found.runs,
        "promoted": found.promoted,
        "rate": found.rate,
        "interval_95": found.interval,
        "openings_per_run": found.openings / found.runs,
        "looks_per_run": found.looks / found.runs,
        "invalid_looks": found.invalid_looks,
        "faults": dict(found.faults),
    }
