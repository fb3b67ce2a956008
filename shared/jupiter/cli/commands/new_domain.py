"""`jupiter new-domain NAME`: the configuration of a new domain."""

from __future__ import annotations

import re
from pathlib import Path

import click

from jupiter.errors import Conflict

NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")

TEMPLATE = """\
# The domain {name}. `jupiter --set domain={name} check` says whether it is valid; docs/new-domain.md explains it.
name: {name}

# One sentence for people: `jupiter up` says it.
description: {description}

# What the generator makes from a passage of your documents, and how often (relative weights).
tasks:
  - {{task: question_answer, weight: 3}}
  - {{task: rewrite, weight: 2}}

audiences: [a beginner, an experienced engineer]
difficulties: [basic, advanced]

# A built-in source of documents. Without one, publish your own:
#   jupiter publish my/documents --domain {name}
source: null

# Kinds of benchmark items; empty: all that the held-out documents allow.
benchmark_kinds: []
"""


@click.command(name="new-domain", short_help="Write the configuration of a new domain.")
@click.argument("name")
@click.option("--description", help="One sentence about it.")
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("config/domains"),
    show_default=True,
    help="Where domains are described.",
)
def command(*, name: str, description: str | None, directory: Path) -> None:
    """Write config/domains/NAME.yaml with every setting explained, and say what to do next."""
    import json

    if not NAME.fullmatch(name):
        raise click.UsageError(f"{name!r} is no name for a domain: lower-case letters, digits and _, a letter first")
    path = directory / f"{name}.yaml"
    if path.exists():
        raise Conflict(f"{path} exists already; edit it, or choose another name")
    directory.mkdir(parents=True, exist_ok=True)
    sentence = json.dumps(description or f"Documents about {name.replace('_', ' ')}.", ensure_ascii=False)
    path.write_text(TEMPLATE.format(name=name, description=sentence))
    click.echo(f"{path} written. Next:")
    click.echo(f"  jupiter --set domain={name} check")
    click.echo(f"  jupiter --set domain={name} up")
    click.echo(f"  jupiter publish PATHS --domain {name}")
