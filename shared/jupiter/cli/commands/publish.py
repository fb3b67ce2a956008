"""`jupiter publish`: documents of a user's own."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import click

from jupiter.cli import Settings
from jupiter.cli.output import api_option, json_option, print_json
from jupiter.errors import JupiterError

BAD_SHOWN_MAX = 20


@click.command(name="publish", short_help="Publish documents of yours to a domain.")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--domain", help="The domain they belong to. Default: the one that runs.")
@click.option("--license", "license_", help="Their licence, kept with every sample made from them.")
@click.option(
    "--split",
    type=click.Choice(["auto", "training", "held_out"]),
    default="auto",
    show_default=True,
    help="Whether they are trained on or kept for the benchmark.",
)
@click.option("--dry-run", is_flag=True, help="Read and check everything, publish nothing.")
@api_option
@json_option
@click.pass_obj
def command(
    settings: Settings,
    *,
    paths: tuple[Path, ...],
    domain: str | None,
    license_: str | None,
    split: str,
    dry_run: bool,
    api: str | None,
    as_json: bool,
) -> int:
    """Publish files and directories: text, Markdown, reStructuredText, Python, and .jsonl (one document a line).

    Bad files are named and the others published all the same; the exit code is then 1. Publishing the same again
    changes nothing.
    """
    from jupiter.cli.connection import Api
    from jupiter.cli.document_files import Refused, Skipped, read_documents
    from jupiter.config.loading import load_domain

    defaults: dict[str, Any] = {"split": split, **({"license": license_} if license_ else {})}
    published = duplicates = 0
    bad: list[Refused] = []
    skipped: Counter[str] = Counter()
    with Api(settings, api) as client:
        if not dry_run:
            _check_domain(client, domain)
        elif domain is not None:
            load_domain(domain)
        for outcome in read_documents(paths, defaults=defaults):
            if isinstance(outcome, Refused):
                bad.append(outcome)
            elif isinstance(outcome, Skipped):
                skipped[Path(outcome.where).suffix or "(no suffix)"] += 1
            elif dry_run:
                published += 1
            elif client.post("/documents", outcome.model_dump(mode="json"))["duplicate"]:
                duplicates += 1
            else:
                published += 1
    summary = {
        "published": published,
        "duplicates": duplicates,
        "bad": [vars(refused) for refused in bad],
        "skipped": dict(skipped),
        "dry_run": dry_run,
    }
    if as_json:
        print_json(summary)
    else:
        _print(summary)
    return int(bool(bad))


def _check_domain(client: Any, domain: str | None) -> None:
    running = client.get("/status")["domain"]
    if domain is not None and domain != running:
        raise JupiterError(f"the system at {client.url} works on the domain {running!r}, not on {domain!r}")


def _print(summary: dict[str, Any]) -> None:
    verb = "could be published" if summary["dry_run"] else "published"
    parts = [f"{summary['published']} documents {verb}"]
    if summary["duplicates"]:
        parts.append(f"{summary['duplicates']} were known already")
    if summary["skipped"]:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(summary["skipped"].items()))
        parts.append(f"skipped files of other kinds: {kinds}")
    if summary["bad"]:
        parts.append(f"{len(summary['bad'])} bad")
    click.echo("; ".join(parts))
    for refused in summary["bad"][:BAD_SHOWN_MAX]:
        click.echo(f"  {refused['where']}: {refused['reason']}", err=True)
    if len(summary["bad"]) > BAD_SHOWN_MAX:
        click.echo(f"  and {len(summary['bad']) - BAD_SHOWN_MAX} more; --json lists them all", err=True)
