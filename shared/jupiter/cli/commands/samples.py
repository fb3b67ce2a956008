"""`jupiter samples`: what the generator makes, and what the curator thinks of it."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

import click

from jupiter.cli import Settings
from jupiter.cli.output import api_option, json_option, print_json

LIMIT_MAX = 200
TEXT_CHARS_SHOWN = 600
WIDTH = 100


@click.command(name="samples", short_help="Show the newest samples, and why others were rejected.")
@click.option("--accepted/--rejected", "accepted", default=None, help="Only those; default: both.")
@click.option("--origin", type=click.Choice(["synthetic", "real"]), help="Only samples of this origin.")
@click.option("--limit", type=click.IntRange(1, LIMIT_MAX), default=5, show_default=True, help="How many of each.")
@api_option
@json_option
@click.pass_obj
def command(
    settings: Settings, *, accepted: bool | None, origin: str | None, limit: int, api: str | None, as_json: bool
) -> None:
    """Show the newest samples: accepted ones, and rejected ones with the reason."""
    from jupiter.cli.connection import Api

    wanted = None if accepted is None else str(accepted).lower()
    with Api(settings, api) as client:
        views = client.get("/samples", accepted=wanted, origin=origin, limit=limit)
    if as_json:
        print_json(views)
        return
    if not views:
        click.echo("no sample yet; `jupiter status` shows what is going on")
    for view in views:
        click.echo(_text(view) + "\n")


def _text(view: Mapping[str, Any]) -> str:
    sample = view["sample"]
    mark = "✓ accepted" if view["accepted"] else f"✗ rejected: {view['reason']}"
    head = [mark, sample.get("origin"), sample.get("task")]
    if sample.get("generator_version"):
        head.append(f"generator v{sample['generator_version']}")
    lines = [" · ".join(str(part) for part in head if part)]
    for label, key in (("", "instruction"), ("→ ", "response")):
        if sample.get(key):
            lines.append(_block(label + str(sample[key])))
    if not sample.get("response") and sample.get("completion"):
        lines.append(_block(f"(as generated) {sample['completion']}"))
    return "\n".join(lines)


def _block(text: str) -> str:
    shown = text if len(text) <= TEXT_CHARS_SHOWN else text[:TEXT_CHARS_SHOWN] + " …"
    lines = [piece for line in shown.splitlines() for piece in (textwrap.wrap(line, WIDTH) or [""])]
    return textwrap.indent("\n".join(lines), "    ")
