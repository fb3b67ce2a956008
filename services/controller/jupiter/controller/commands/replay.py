"""`jupiter replay`: decide again on what a verdict was made from.

Owns: where the record comes from, and what is printed. Does not know: the gate, nor what a record is held against
(`jupiter.controller.replaying`).
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jupiter.cli import Settings
from jupiter.cli.output import api_option
from jupiter.errors import JupiterError

if TYPE_CHECKING:
    from jupiter.controller.replaying import Stored

INPUTS, VERDICT = "inputs.json", "verdict.json"
REPORT, CONFIRMATION = "report.json", "confirmation.json"


@click.command(name="replay", short_help="Recompute a verdict offline from its record.")
@click.argument("evaluation")
@api_option
@click.pass_obj
def command(settings: Settings, *, evaluation: str, api: str | None) -> int:
    """Recompute the verdict of EVALUATION from what it was made from, and compare bit for bit.

    EVALUATION is a folder with inputs.json and verdict.json, such an inputs.json, or the id (or its beginning) of an
    evaluation of the system that runs. In a folder, report.json and confirmation.json are compared too, where they lie
    beside. Exit code 1 when the verdicts differ, with every place where they do, or when the record was changed: inputs
    that are not those that the verdict names, another report than the evaluator stored, a ledger whose chain is broken
    or is not the one that stands, a verdict that is not the one that its event or the ledger's promotion names.
    """
    from jupiter.controller.replaying import replayed

    path = Path(evaluation)
    found = replayed(_of_files(path) if path.exists() else _of_api(settings, api, evaluation))
    for fault in found.faults:
        click.echo(fault, err=True)
    if found.faults:
        return 1
    click.echo(f"{found.decision}: the same verdict, bit for bit")
    if found.not_compared:
        click.echo(f"not compared, for it is not at hand: {', '.join(found.not_compared)}", err=True)
    return 0


def _of_files(path: Path) -> Stored:
    from jupiter.controller.replaying import Stored

    folder = path if path.is_dir() else path.parent
    found = (folder / INPUTS if path.is_dir() else path), folder / VERDICT
    for file in found:
        if not file.is_file():
            raise JupiterError(f"{file} does not exist; a record is {INPUTS} and {VERDICT} of one evaluation")
    return Stored(
        inputs=found[0].read_bytes(),
        verdict=found[1].read_bytes(),
        report=_if_there(folder / REPORT),
        confirmation=_if_there(folder / CONFIRMATION),
    )


def _if_there(file: Path) -> bytes | None:
    return file.read_bytes() if file.is_file() else None


def _of_api(settings: Settings, api: str | None, evaluation: str) -> Stored:
    from jupiter.cli.connection import Api
    from jupiter.controller.replaying import Stored
    from jupiter.ledger import LedgerEntry

    with Api(settings, api) as client:
        record = client.get(f"/evaluations/{evaluation}/record")
        entries = client.get("/history")["entries"]
    if record["inputs_base64"] is None:
        raise JupiterError(
            f"evaluation {record['evaluation_id']} was settled as INVALID because nothing readable was there to "
            "decide on: there is nothing to recompute"
        )
    ledger = tuple(LedgerEntry.model_validate(entry) for entry in entries)
    promotions = (
        entry.evidence_sha256
        for entry in ledger
        if entry.action == "promoted" and entry.evaluation_id == record["evaluation_id"]
    )
    originals = record["originals"]
    return Stored(
        inputs=base64.b64decode(record["inputs_base64"]),
        verdict=base64.b64decode(record["verdict_base64"]),
        told=record["verdict_sha256"],
        promoted=next(promotions, None),
        ledger=ledger,
        report=_json(originals["report"]),
        confirmation=_json(originals["confirmation"]),
        shadow=_json(originals["shadow"]),
        unreadable=tuple(originals["faults"]),
    )


def _json(value: Any) -> bytes | None:
    from jupiter.records import canonical_json

    return None if value is None else canonical_json(value)
