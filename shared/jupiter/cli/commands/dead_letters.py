"""`jupiter dead-letters`: messages that nobody could handle."""

from __future__ import annotations

import click

from jupiter.cli import Settings
from jupiter.cli.output import api_option, json_option, print_json

LIMIT_MAX = 1_000
DATA_CHARS_SHOWN = 80


@click.group(name="dead-letters", short_help="List, replay or drop messages that nobody could handle.")
def command() -> None:
    """Messages that nobody could handle: malformed documents, or work that failed time after time.

    They stay until they are replayed or dropped; nothing is lost in silence.
    """


@command.command(name="list")
@click.option("--after", type=click.IntRange(0), default=0, help="Only those with a higher number.")
@click.option("--limit", type=click.IntRange(1, LIMIT_MAX), default=100, show_default=True, help="How many at most.")
@api_option
@json_option
@click.pass_obj
def list_(settings: Settings, *, after: int, limit: int, api: str | None, as_json: bool) -> None:
    """List them, oldest first, with the reason."""
    from jupiter.cli.connection import Api

    with Api(settings, api) as client:
        letters = client.get("/dead-letters", after=after, limit=limit)
    if as_json:
        print_json(letters)
        return
    if not letters:
        click.echo("no dead letters")
    for letter in letters:
        data = letter["data"]
        shown = data if len(data) <= DATA_CHARS_SHOWN else data[:DATA_CHARS_SHOWN] + " …"
        click.echo(f"{letter['sequence']}  {letter['subject']}  {letter['service']}: {letter['reason']}")
        click.echo(f"    {shown!r}")


@command.command()
@click.argument("sequences", nargs=-1, required=True, type=int)
@api_option
@click.pass_obj
def replay(settings: Settings, *, sequences: tuple[int, ...], api: str | None) -> None:
    """Publish the messages with these numbers again, where they came from."""
    from jupiter.cli.connection import Api

    with Api(settings, api) as client:
        for sequence in sequences:
            client.post(f"/dead-letters/{sequence}/replay", None)
            click.echo(f"{sequence} replayed")


@command.command()
@click.argument("sequences", nargs=-1, required=True, type=int)
@api_option
@click.pass_obj
def drop(settings: Settings, *, sequences: tuple[int, ...], api: str | None) -> None:
    """Remove the messages with these numbers for good."""
    from jupiter.cli.connection import Api

    with Api(settings, api) as client:
        for sequence in sequences:
            client.delete(f"/dead-letters/{sequence}")
            click.echo(f"{sequence} dropped")
