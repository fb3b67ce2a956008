"""`jupiter demo`: the whole cycle once, for real, with a report."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from jupiter.cli import Settings

# The demo is promoted in its first round as a rule; a control has the same one.
DEFAULT_ROUNDS = {"none": 3, "shuffled": 1}


@click.command(name="demo", short_help="Run the whole self-improvement cycle for real, with a report.")
@click.option(
    "--control",
    type=click.Choice(["none", "shuffled"]),
    default="none",
    show_default=True,
    help="`shuffled`: train on answers permuted among the questions; the gate must then refuse.",
)
@click.option(
    "--rounds",
    "rounds_max",
    type=click.IntRange(1, 20),
    default=None,
    help="Evaluations to wait for before giving up on a promotion.  [default: 3; 1 with a control]",
)
@click.option(
    "--report",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("demo-report.json"),
    show_default=True,
    help="Where the report goes; the figure goes beside it as PNG.",
)
@click.pass_obj
def command(settings: Settings, *, control: str, rounds_max: int | None, report: Path) -> int:
    """Run the whole cycle on this machine: real servers, a real model, real training, the real gate.

    Settings are those of config/demo.yaml; what they lower is printed first. Everything lies in .jupiter/demo, which
    is emptied at the start. Exit code 0: what was to be shown was seen (a promotion, its hot reload, data from the
    new version, a rollback; with --control shuffled: a refusal). 1: it was not.
    """
    click.echo("jupiter demo: one whole turn of the cycle on this machine, nothing faked")
    from jupiter.cli.demonstration import demo_configuration, run_in_foreground

    config = demo_configuration(settings, control=control)
    rounds = rounds_max or DEFAULT_ROUNDS[control]
    return asyncio.run(run_in_foreground(config, rounds_max=rounds, report_path=report))
