"""`jupiter check`: a dry run of the configuration."""

from __future__ import annotations

import click

from jupiter.cli import Settings
from jupiter.cli.output import json_option, print_json


@click.command(name="check", short_help="Validate the configuration and show it as resolved.")
@json_option
@click.pass_obj
def command(settings: Settings, *, as_json: bool) -> int:
    """Validate the configuration and the domain's, and show them as a service would see them.

    Starts nothing. Exit code 2 when a setting is wrong, 1 when the settings contradict each other or the machine.
    """
    import yaml

    from jupiter.cli.connection import configuration
    from jupiter.cli.contradictions import contradictions
    from jupiter.config.loading import load_domain_of
    from jupiter.config.secrecy import without_secrets

    config = configuration(settings)
    domain = load_domain_of(config)
    problems = contradictions(config, domain)
    resolved = without_secrets(config)
    if as_json:
        print_json({"config": resolved, "domain": domain.model_dump(mode="json"), "problems": problems})
    else:
        click.echo(yaml.safe_dump(resolved, sort_keys=False).rstrip())
        click.echo(f"\n# config/domains/{config.domain}.yaml")
        click.echo(yaml.safe_dump(domain.model_dump(mode="json"), sort_keys=False).rstrip())
        for problem in problems:
            click.echo(f"jupiter: {problem}", err=True)
    return int(bool(problems))
