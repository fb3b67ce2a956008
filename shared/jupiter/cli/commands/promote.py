"""`jupiter promote`: make an evaluated checkpoint the generator."""

from __future__ import annotations

import getpass
from typing import Any

import click

from jupiter.cli import Settings
from jupiter.cli.output import api_option, json_option, print_json
from jupiter.errors import NotFound


@click.command(name="promote", short_help="Make an evaluated checkpoint the generator.")
@click.argument("evaluation", required=False)
@click.option("--checkpoint", metavar="ID", help="Promote this checkpoint instead of an evaluation's.")
@click.option("--version", type=int, help="Promote a version that the ledger knows, e.g. one that was rolled back.")
@click.option("--reason", default="by hand", show_default=True, help="Why; it stays in the ledger.")
@click.option("--force", is_flag=True, help="Although the gate did not say PROMOTE; the ledger records that.")
@click.option("--expected-version", type=int, help="Refuse if another version is live. Default: the one live now.")
@api_option
@json_option
@click.pass_obj
def command(
    settings: Settings,
    *,
    evaluation: str | None,
    checkpoint: str | None,
    version: int | None,
    reason: str,
    force: bool,
    expected_version: int | None,
    api: str | None,
    as_json: bool,
) -> None:
    """Make the checkpoint of EVALUATION (an id or its beginning) the generator.

    Without EVALUATION it is the newest one that the gate found better than the generator of today. Every generator
    then loads the new version; if none can, the controller rolls back by itself.
    """
    from jupiter.cli.connection import Api

    if sum(value is not None for value in (evaluation, checkpoint, version)) > 1:
        raise click.UsageError("name one of EVALUATION, --checkpoint and --version")
    with Api(settings, api) as client:
        body: dict[str, Any] = {
            "expected_version": expected_version or live_version(client),
            "actor": getpass.getuser(),
            "reason": reason,
            "force": force,
        }
        if checkpoint is not None:
            body["checkpoint_id"] = checkpoint
        elif version is not None:
            body["version"] = version
        else:
            body["evaluation_id"] = _evaluation(client, evaluation, live=body["expected_version"])
        entry = client.post("/promote", body)
    if as_json:
        print_json(entry)
    else:
        click.echo(f"version {entry['version']} is the generator now, after version {entry['previous_version']}")


def live_version(client: Any) -> int:
    """Return the version that is live. Raises NotFound before there is one."""
    generator = client.get("/status")["generator"]
    if generator is None:
        raise NotFound("there is no generator yet: the base model is still being imported; see `jupiter status`")
    return int(generator["version"])


def _evaluation(client: Any, prefix: str | None, *, live: int) -> str:
    if prefix is not None:
        return str(client.get(f"/evaluations/{prefix}")["evaluation"]["evaluation_id"])
    promoted = {entry["evaluation_id"] for entry in client.get("/history")["entries"] if entry["action"] == "promoted"}
    found = [
        view
        for view in client.get("/evaluations")
        if view["decision"] == "PROMOTE" and view["generator_version"] == live and view["evaluation_id"] not in promoted
    ]
    if not found:
        raise NotFound(
            f"no evaluation found a checkpoint better than version {live} that was not promoted before; see "
            "`jupiter evaluations`"
        )
    return str(found[-1]["evaluation_id"])
