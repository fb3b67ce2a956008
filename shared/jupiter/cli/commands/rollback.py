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
@click.option("--quarantine", is_flag=True, help="Take back what the version left behind has generated.")
@click.option("--rewind", is_flag=True, help="With --quarantine: send the trainer back to its last clean checkpoint.")
@click.option("--expected-version", type=int, help="Refuse if another version is live. Default: the one live now.")
@api_option
@json_option
@click.pass_obj
def command(
    settings: Settings,
    *,
    version: int | None,
    reason: str,
    quarantine: bool,
    rewind: bool,
    expected_version: int | None,
    api: str | None,
    as_json: bool,
) -> None:
    """Make an earlier version the generator again.

    It is a new entry in the history, which is never edited. Requests of the version rolled back are void.

    With --quarantine its batches are left out of all later shards and rounds of training, and the checkpoints that were
    trained on them are named; with --rewind as well, the trainer goes back to the last one that was not.
    """
    if rewind and not quarantine:
        raise click.UsageError("--rewind goes back to before what was quarantined: give --quarantine too")
    from jupiter.cli.commands.promote import live_version
    from jupiter.cli.connection import Api
    from jupiter.cli.lineage_tree import withdrawal_lines

    with Api(settings, api) as client:
        body: dict[str, Any] = {
            "version": version,
            "expected_version": expected_version or live_version(client),
            "actor": getpass.getuser(),
            "reason": reason,
            "quarantine": quarantine,
            "rewind": rewind,
        }
        entry = client.post("/rollback", body)
        taken_back = client.get(f"/withdrawals/{entry['sequence']}") if quarantine else None
    if as_json:
        print_json(entry if taken_back is None else {**entry, "withdrawal": taken_back})
        return
    click.echo(f"version {entry['version']} is the generator again, after version {entry['previous_version']}")
    for line in withdrawal_lines(taken_back) if taken_back else ():
        click.echo(line)
