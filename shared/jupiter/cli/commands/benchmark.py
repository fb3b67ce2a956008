"""`jupiter benchmark`: how far the benchmark is spent, and asking for another one."""

from __future__ import annotations

import getpass
from typing import Any

import click

from jupiter.cli import Settings
from jupiter.cli.output import api_option, json_option, print_json

DIGEST_CHARS = 12


@click.group(name="benchmark", short_help="Show how far the benchmark is spent, or renew it.")
def command() -> None:
    """The frozen benchmark that every checkpoint is measured on.

    Its sealed half may be opened a few times (self_improvement.sealed_openings_max); then another benchmark is needed,
    from held-out documents of sources that were not in a sealed half before.
    """


@command.command()
@api_option
@json_option
@click.pass_obj
def show(settings: Settings, *, api: str | None, as_json: bool) -> None:
    """Show every benchmark, openings spent, and what there is for another one."""
    from jupiter.cli.connection import Api

    with Api(settings, api) as client:
        _say(client.get("/benchmark"), as_json=as_json)


@command.command()
@click.option("--reason", default="by hand", show_default=True, help="Why; it stays in the log.")
@api_option
@json_option
@click.pass_obj
def renew(settings: Settings, *, reason: str, api: str | None, as_json: bool) -> None:
    """Ask the evaluator for another benchmark from held-out documents that were never sealed.

    It leaves out what earlier shards hold, so the checkpoints of the run can be judged on it. Openings against a
    generator stay spent. What becomes of it, `jupiter benchmark show` says. Once the openings are used up, the
    controller asks by itself as soon as there are enough new documents.
    """
    from jupiter.cli.connection import Api

    with Api(settings, api) as client:
        in_use = client.get("/benchmark")["generations"][-1]["generation"]
        body = {"expected_generation": in_use, "actor": getpass.getuser(), "reason": reason}
        _say(client.post("/benchmark/renew", body), as_json=as_json)


def _say(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    *older, newest = found["generations"]
    for one in older:
        click.echo(f"{_named(one)}; {one['openings']} openings; no longer in use")
    spent = f"{newest['openings']} of {found['openings_max']} openings spent"
    click.echo(f"{_named(newest)}; {spent}; in use")
    click.echo(f"new held-out documents: {found['fresh_documents']} from {found['fresh_sources']} sources")
    renewal = found["renewal"]
    if renewal is not None:
        asked = f"generation {renewal['generation']}, asked for by {renewal['actor']} ({renewal['reason']})"
        click.echo(f"{asked}: {_answer(renewal)}")


def _named(one: dict[str, Any]) -> str:
    digest, sources = one["digest"][:DIGEST_CHARS], one["clusters"]
    return f"generation {one['generation']}: {digest}, {one['items']} items from {sources} sources"


def _answer(renewal: dict[str, Any]) -> str:
    return f"refused: {renewal['refused']}" if renewal["refused"] else "the evaluator is at it"
