"""`jupiter history`: which version was the generator, when and why."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import click

from jupiter.cli import Settings
from jupiter.cli.output import api_option, json_option, print_json


@click.command(name="history", short_help="Show which version was the generator, when and why.")
@click.option("--at", metavar="TIME", help="Show what was live then, e.g. 2026-11-22T18:00 (local time without zone).")
@api_option
@json_option
@click.pass_obj
def command(settings: Settings, *, at: str | None, api: str | None, as_json: bool) -> None:
    """Show every promotion, rollback and opening of a sealed half, from the ledger, whose chain is verified first."""
    from jupiter.cli.connection import Api
    from jupiter.cli.table import table

    with Api(settings, api) as client:
        history = client.get("/history", live_at=_instant(at) if at else None)
    if as_json:
        print_json(history)
        return
    live = history["live"]
    if at:
        click.echo(f"version {live['version']} was live" if live else "no version was live then")
        return
    rows = [
        (
            entry["sequence"],
            _local(entry["time"]),
            _what(entry),
            f"v{entry['version']}" + (" *" if live and entry["sequence"] == live["sequence"] else ""),
            entry["actor"],
            entry["reason"],
        )
        for entry in history["entries"]
    ]
    click.echo(table(("#", "when", "what", "version", "by", "why"), rows))


def _what(entry: Mapping[str, Any]) -> str:
    if entry["action"] == "opened":
        return f"opening {entry['opening']}"
    quarantined = ", quarantined" if entry.get("quarantined") else ""
    return f"{entry['action'].replace('_', ' ')}{quarantined}"


def _instant(text: str) -> str:
    try:
        return datetime.fromisoformat(text).astimezone().isoformat()
    except ValueError:
        raise click.UsageError(f"--at {text!r} is no time; write it like 2026-11-22T18:00") from None


def _local(time: str) -> str:
    return datetime.fromisoformat(time).astimezone().strftime("%Y-%m-%d %H:%M:%S")
