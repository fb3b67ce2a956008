"""`jupiter evaluations`: what was measured, and what the gate said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from jupiter.cli import Settings
from jupiter.cli.output import api_option, json_option, print_json

ID_SHOWN = 10


@click.command(name="evaluations", short_help="List the evaluations and their verdicts.")
@click.argument("evaluation", required=False)
@api_option
@json_option
@click.pass_obj
def command(settings: Settings, *, evaluation: str | None, api: str | None, as_json: bool) -> None:
    """List every evaluation; or, given an id or its beginning, show all checks of one.

    Scores go from 0 to 1. The difference is that of the candidate and the generator of the day on the same items, those
    of the benchmark's development half; the sealed half is shown where it was opened.
    """
    from jupiter.cli.connection import Api
    from jupiter.cli.table import table

    with Api(settings, api) as client:
        answer = client.get(f"/evaluations/{evaluation}" if evaluation else "/evaluations")
    if as_json:
        print_json(answer)
    elif evaluation:
        _show(answer)
    elif not answer:
        click.echo("no evaluation yet; `jupiter status` shows when the next one is due")
    else:
        headers = ("epoch", "id", "step", "against", "items", "candidate", "generator", "difference", "95 %", "verdict")
        click.echo(table(headers, [_row(view) for view in answer]))


def _row(view: Mapping[str, Any]) -> tuple[Any, ...]:
    return (
        view["epoch"],
        view["evaluation_id"][:ID_SHOWN],
        view["step"],
        f"v{view['generator_version']}",
        view["items"],
        f"{view['candidate_score']:.3f}",
        f"{view['generator_score']:.3f}",
        f"{view['difference']:+.3f}",
        f"{view['ci_low']:+.3f} … {view['ci_high']:+.3f}",
        view["decision"] or f"({view['stage']})",
    )


def _show(detail: Mapping[str, Any]) -> None:
    from jupiter.cli.table import table

    view, report, verdict = detail["evaluation"], detail["report"], detail["verdict"]
    click.echo(f"evaluation {view['evaluation_id']}")
    click.echo(
        f"checkpoint {view['checkpoint_id']} (run {view['run']}, step {view['step']}) against generator version"
        f" {view['generator_version']}, {view['items']} items\n"
    )
    if report is None:
        click.echo("its report cannot be read")
    else:
        _show_scores("development half", report)
        if report["confirmation"]:
            _show_scores(f"sealed half, opening {report['confirmation']['opening']}", report["confirmation"])
    if verdict is None:
        click.echo(f"\nno verdict yet: {view['stage_detail'] or view['stage']}")
        return
    click.echo(f"\n{verdict['decision']}")
    checks = [(check["outcome"], check["name"], check["figure"], check["bound"]) for check in verdict["checks"]]
    click.echo(table(("", "check", "figure", "bound"), checks))
    if detail["refusal"]:
        click.echo(f"\nits promotion could not be carried out: {detail['refusal']}")


def _show_scores(half: str, scored: Mapping[str, Any]) -> None:
    from jupiter.cli.table import table

    rows = [
        (
            name,
            f"{scored['candidate'][name]:.3f}",
            f"{scored['generator'][name]:.3f}",
            f"{scored['candidate'][name] - scored['generator'][name]:+.3f}",
        )
        for name in ("composite", "accuracy", "coherence", "knowledge")
    ]
    click.echo(table((half, "candidate", "generator", "difference"), rows))
    click.echo(f"95 % interval of the difference: {scored['ci_low']:+.3f} … {scored['ci_high']:+.3f}\n")
