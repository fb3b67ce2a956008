"""`jupiter plot`: the customer's figure."""

from __future__ import annotations

from pathlib import Path

import click

from jupiter.cli import Settings


@click.command(name="plot", short_help="Draw the scores, the threshold and the promotions as PNG.")
@click.option(
    "--state",
    "state_path",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="A pipeline_state.json; default: the one the controller keeps in data_dir.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("jupiter-progress.png"),
    show_default=True,
    help="Where the figure goes.",
)
@click.pass_obj
def command(settings: Settings, *, state_path: Path | None, output: Path) -> None:
    """Draw the score of every evaluation, the generator's line and the threshold above it.

    Promotions and rollbacks are marked. Nothing needs to run: the file pipeline_state.json is enough.
    """
    from jupiter.cli.connection import configuration
    from jupiter.cli.figure import draw
    from jupiter.cli.state import read_state

    draw(read_state(state_path or configuration(settings).data_dir / "pipeline_state.json"), output)
    click.echo(f"{output} written")
