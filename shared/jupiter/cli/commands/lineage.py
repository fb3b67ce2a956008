"""`jupiter lineage`: where a version comes from, and where a document went."""

from __future__ import annotations

from urllib.parse import quote

import click

from jupiter.cli import Settings
from jupiter.cli.output import api_option, json_option, print_json


@click.command(name="lineage", short_help="Show what a version was made from, or what came from a document.")
@click.argument("name")
@click.option("--all", "everything", is_flag=True, help="Every shard, sample and document, not only the first.")
@click.option("--samples", is_flag=True, help="Name the samples of each shard, with document and template.")
@api_option
@json_option
@click.pass_obj
def command(settings: Settings, *, name: str, everything: bool, samples: bool, api: str | None, as_json: bool) -> None:
    """Show what is behind NAME: a version (v3) or a checkpoint, or what came from a document.

    A document is named by its id, the beginning of it, its source or its title.
    """
    from jupiter.cli.connection import Api
    from jupiter.cli.lineage_tree import lineage_lines, recall_lines

    with Api(settings, api) as client:
        found = client.get(f"/lineage/{quote(name, safe='')}", samples="true" if samples else None)
    if as_json:
        print_json(found)
        return
    if "source" in found:
        lines = recall_lines(found, everything=everything, samples=samples)
    else:
        lines = lineage_lines(found, everything=everything)
    for line in lines:
        click.echo(line)
