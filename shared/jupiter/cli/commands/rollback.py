"""`jupiter rollback`: make an earlier version the generator again."""

from __future__ import annotations

import getpass
from typing import Any

import click

from jupiter.cli import Settings
from jupiter.cli.output import api_option, json_option, print_json


@click.command(name="rollback", short_help="Make an earlier version the generator again.")
@click.option("--to", "version", type=int, help="The version to go back to. Default: the one before the live one.")
@click.option("--reason", default="by hand", show_default=True, help="Why; it stays in the ledger.")
@click.option("--expected-version", type=int, help="Refuse if another version is live. Default: the one live now.")
@api_option
@json_option
@click.pass_obj
def command(
    settings: Settings,
    *,
    version: int | None,
    reason: str,
    expected_version: int | None,
    api: str | None,
    as_json: bool,
) -> None:
    """Make an earlier version the generator again.

    It is a new entry in the history, which is never edited. Requests of the version rolled back are void.
    """
    from jupiter.cli.commands.promote import live_version
    from jupiter.cli.connection import Api

    with Api(settings, api) as client:
        body: dict[str, Any] = {
            "version": version,
            "expected_version": expected_version or live_version(client),
            "actor": getpass.getuser(),
            "reason": reason,
        }
        entry = client.post("/rollback", body)
    if as_json:
        print_json(entry)
    else:
        click.echo(f"version {entry['version']} is the generator again, after version {entry['previous_version']}")
