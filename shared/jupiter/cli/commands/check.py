"""`jupiter check`: a dry run of the configuration."""

from __future__ import annotations

import click

from jupiter.cli import Settings
from jupiter.cli.output import json_option, print_json

SECRETS = frozenset({"secret_key", "nkey_seed", "api_keys"})


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
    from jupiter.config.loading import load_domain

    config = configuration(settings)
    domain = load_domain(config.domain)
    problems = contradictions(config, domain)
    resolved = _without_secrets(config.model_dump(mode="json"))
    if as_json:
        print_json({"config": resolved, "domain": domain.model_dump(mode="json"), "problems": problems})
    else:
        click.echo(yaml.safe_dump(resolved, sort_keys=False).rstrip())
        click.echo(f"\n# config/domains/{config.domain}.yaml")
        click.echo(yaml.safe_dump(domain.model_dump(mode="json"), sort_keys=False).rstrip())
        for problem in problems:
            click.echo(f"jupiter: {problem}", err=True)
    return int(bool(problems))


def _without_secrets(section: dict[str, object]) -> dict[str, object]:
    return {
        key: _without_secrets(value) if isinstance(value, dict) else "(set)" if key in SECRETS and value else value
        for key, value in section.items()
    }
