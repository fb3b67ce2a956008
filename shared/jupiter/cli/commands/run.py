"""`jupiter run SERVICE`: one service in this process."""

from __future__ import annotations

import runpy
import sys

import click

from jupiter.cli import Settings

SERVICES = ("controller", "curator", "generator", "trainer", "evaluator")


@click.command(name="run", short_help="Run one service in this process, as in a cluster.")
@click.argument("service", type=click.Choice(SERVICES))
@click.pass_obj
def command(settings: Settings, *, service: str) -> None:
    """Run one service in this process, as in a cluster: `jupiter run trainer` is `python -m jupiter.trainer`.

    It connects to nats.url and s3.endpoint of the configuration, and drains on SIGTERM.
    """
    options = [f"--config={path}" for path in settings.overlays]
    options += [f"--set={assignment}" for assignment in settings.assignments]
    sys.argv = [f"jupiter run {service}", *options]
    runpy.run_module(f"jupiter.{service}", run_name="__main__", alter_sys=False)
