"""`jupiter forget`: leave a document out of everything that is made from now on."""

from __future__ import annotations

import getpass
from urllib.parse import quote

import click

from jupiter.cli import Settings
from jupiter.cli.output import api_option, json_option, print_json


@click.command(name="forget", short_help="Recall a document, and list all that came from it.")
@click.argument("document")
@click.option("--reason", default="by hand", show_default=True, help="Why; it stays in the log.")
@api_option
@json_option
@click.pass_obj
def command(settings: Settings, *, document: str, reason: str, api: str | None, as_json: bool) -> None:
    """Leave DOCUMENT (an id, its beginning, a source or a title) out of all that is made from now on.

    Nothing more is generated from it, none of it enters a shard, and the trainer learns none of it from its next
    round on. What is in weights already stays there and is listed. `jupiter lineage DOCUMENT` lists without recalling.
    """
    from jupiter.cli.connection import Api
    from jupiter.cli.lineage_tree import recall_lines

    with Api(settings, api) as client:
        recall = client.post(f"/documents/{quote(document, safe='')}/forget", {"actor": _user(), "reason": reason})
    if as_json:
        print_json(recall)
        return
    for line in recall_lines(recall):
        click.echo(line)


def _user() -> str:
    return getpass.getuser()
