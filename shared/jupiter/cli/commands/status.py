"""`jupiter status`: what every part of the cycle is doing."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from jupiter.cli import Settings
from jupiter.cli.output import api_option, json_option, print_json
from jupiter.errors import Unavailable

REFRESH_S = 1.0


@click.command(name="status", short_help="Show what every part of the cycle is doing.")
@click.option("--once", is_flag=True, help="Print the state once instead of following it.")
@api_option
@json_option
@click.pass_obj
def command(settings: Settings, *, once: bool, api: str | None, as_json: bool) -> None:
    """Show every stage with its progress and the time it still takes; on a terminal live, until Ctrl-C."""
    from jupiter.cli.connection import Api
    from jupiter.cli.progress import headline, milestones, stage_line

    with Api(settings, api) as client:
        status = client.get("/status")
        if as_json:
            print_json(status)
        elif once or not sys.stdout.isatty():
            click.echo(headline(status))
            for stage in status["stages"]:
                click.echo(f"  {stage_line(stage)}")
            for line in milestones(status):
                click.echo(line)
        else:
            _follow(client)


def _follow(client: Any) -> None:
    from jupiter.cli.view import LiveView

    with LiveView(f"Jupiter at {client.url}") as view:
        while True:
            try:
                view.update(client.get("/status"))
            except Unavailable as error:
                view.notice(str(error))
            time.sleep(REFRESH_S)
