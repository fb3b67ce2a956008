"""`jupiter doctor`: can this machine run Jupiter?"""

from __future__ import annotations

import json

import click

from jupiter.cli import Settings


@click.command(name="doctor", short_help="Find out whether this machine can run Jupiter.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.pass_obj
def command(settings: Settings, *, as_json: bool) -> int:
    """Check this machine: Python, cores, memory, disk, the embedded servers, ports, the sandbox, torch.

    Exit code 0 when everything that is needed is there, 1 when something is missing. What is only recommended is
    marked with `!`.
    """
    from jupiter.cli.connection import configuration
    from jupiter.cli.diagnosis import diagnose

    findings = diagnose(configuration(settings))
    if as_json:
        click.echo(json.dumps([vars(finding) for finding in findings], indent=2))
    else:
        width = max(len(finding.name) for finding in findings)
        for finding in findings:
            mark = {"ok": "✓", "warning": "!", "problem": "✗"}[finding.outcome]
            click.echo(f"{mark} {finding.name:<{width}}  {finding.text}")
            if finding.fix:
                click.echo(f"  {'':<{width}}  → {finding.fix}")
    return int(any(finding.outcome == "problem" for finding in findings))
