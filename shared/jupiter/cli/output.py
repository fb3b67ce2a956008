"""Options that several commands share, and printing JSON."""

from __future__ import annotations

import json
from typing import Any

import click

__all__ = ["api_option", "json_option", "print_json"]

api_option = click.option(
    "--api", metavar="URL", help="Address of the controller's API; default: the system of this data_dir."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
