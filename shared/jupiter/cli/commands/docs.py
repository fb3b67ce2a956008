"""`jupiter docs`: the reference of the command line."""

from __future__ import annotations

from pathlib import Path

import click

from jupiter.errors import JupiterError


@click.command(name="docs", short_help="Write the reference of these commands, docs/cli.md.")
@click.option("--check", is_flag=True, help="Change nothing; exit code 1 if the file is not up to date.")
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), default=Path("docs/cli.md"), show_default=True
)
def command(*, check: bool, output: Path) -> None:
    """Write the reference of these commands from the commands themselves."""
    from jupiter.cli.reference import render

    text = render()
    if check:
        if not output.exists() or output.read_text() != text:
            raise JupiterError(f"{output} is not up to date; run `jupiter docs`")
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text)
    click.echo(f"{output} written")
