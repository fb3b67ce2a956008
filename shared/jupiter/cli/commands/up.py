"""`jupiter up`: everything on this machine."""

from __future__ import annotations

import asyncio

import click

from jupiter.cli import Settings


@click.command(name="up", short_help="Run everything on this machine: the servers and the five services.")
@click.option("--exit-when-ready", is_flag=True, help="Stop again once everything is up: a test of the installation.")
@click.pass_obj
def command(settings: Settings, *, exit_when_ready: bool) -> int:
    """Run everything on this machine: nats-server, an S3 server, and the five services, each its own process.

    All data lie in data_dir (default .jupiter). Ctrl-C drains and stops everything; the next `jupiter up` goes on
    where it was. What dies is started again. A second Ctrl-C kills.
    """
    from jupiter.cli.connection import configuration
    from jupiter.cli.running import run_up

    return asyncio.run(run_up(configuration(settings), exit_when_ready=exit_when_ready))
