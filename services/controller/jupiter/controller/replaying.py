"""A verdict decided again from its record, and the record held against all that it must agree with.

Owns: the comparison. A record is two files that one may rewrite together; what it cannot take along are the digests in
events and ledger, and what evaluator and curator stored under digests of their own. Pure.
Does not know: where the record comes from, nor any rule of the gate.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from pydantic import ValidationError

from jupiter.controller.evidence import Inputs
from jupiter.controller.gate import decide
from jupiter.errors import IntegrityError, JupiterError
from jupiter.ledger import LedgerEntry, verify
from jupiter.records import Record, canonical_json
from jupiter.reports import Confirmation, EvaluationReport, Shadow

__all__ = ["Replayed", "Stored", "replayed"]

PLACES_MAX = 5
"""Of a difference to an original; of two verdicts every place is named."""
ADDED = ("confirmation", "shadow", "contamination")
"""What the controller puts into a report, so that the evaluator's own has none of it."""

R = TypeVar("R", bound=Record)


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A record as it stands, and what is at hand to hold it against; None: not at hand."""

    inputs: bytes
    verdict: bytes
    told: str | None = None
    """sha256 of the verdict, by its event."""
    promoted: str | None = None
    """sha256 of the verdict that the ledger's promotion rests on."""
    ledger: tuple[LedgerEntry, ...] | None = None
    """All of it, as it stands now."""
    report: bytes | None = None
    """As the evaluator stored it; the confirmation too."""
    confirmation: bytes | None = None
    shadow: bytes | None = None
    """As the curator judged."""
    unreadable: tuple[str, ...] = ()
    """Why one of them cannot be read any more."""


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """What came of it."""

    decision: str
    faults: tuple[str, ...]
    not_compared: tuple[str, ...]


def replayed(stored: Stored) -> Replayed:
    """Decide again and compare. Raises JupiterError when the record is not readable."""
    inputs, said = _read(stored.inputs, Inputs), _object(stored.verdict)
    verdict = decide(inputs.report, inputs.history, inputs.config)
    if said.get("inputs_sha256") is not None:  # else it is older than the field, and was stored without it
        verdict = verdict.model_copy(update={"inputs_sha256": hashlib.sha256(stored.inputs).hexdigest()})
    again = canonical_json(verdict)
    faults = [*_faults(stored, inputs), *_other_originals(stored, inputs)]
    if again != stored.verdict:
        faults.append(f"the record says {said.get('decision')}, decided again it is {verdict.decision}")
        places = list(_differences(said, json.loads(again), "in the record", "recomputed"))
        faults += [f"  differs in {place}" for place in places or ["the bytes: the file is not canonical JSON"]]
    return Replayed(decision=verdict.decision, faults=tuple(faults), not_compared=_not_compared(stored, inputs))


def _faults(stored: Stored, inputs: Inputs) -> Iterator[str]:
    """Yield what was changed although the same verdict may follow from it."""
    # What an older release did not write is not expected: its fields are unset.
    if canonical_json(inputs.model_dump(mode="json", exclude_unset=True)) != stored.inputs:
        yield "inputs.json is not in the form that it is stored in: somebody rewrote it"
    decided_on = inputs.history.ledger
    try:
        verify([canonical_json(entry) for entry in decided_on], domain=inputs.report.domain)
    except IntegrityError as error:
        yield f"the ledger in inputs.json is not sound: {error}"
    if stored.ledger is not None and decided_on != stored.ledger[: len(decided_on)]:
        yield "the ledger in inputs.json is not the beginning of the ledger that stands"
    found = hashlib.sha256(stored.verdict).hexdigest()
    if stored.told not in (None, found):
        yield f"the event told of verdict {stored.told}; this one is {found}"
    if stored.promoted not in (None, found):
        yield f"the ledger's promotion rests on verdict {stored.promoted}; this one is {found}"


def _other_originals(stored: Stored, inputs: Inputs) -> Iterator[str]:
    """Yield where the inputs are not what evaluator and curator stored."""
    yield from stored.unreadable
    used = inputs.report
    if stored.report is not None:
        own = _read(stored.report, EvaluationReport)
        added = {name: getattr(used, name) for name in ADDED}
        yield from _unlike("report.json as the evaluator stored it", own.model_copy(update=added), used)
    if stored.confirmation is not None and used.confirmation is not None:
        own_confirmation = _read(stored.confirmation, Confirmation)
        yield from _unlike("confirmation.json as the evaluator stored it", own_confirmation, used.confirmation)
    if stored.shadow is not None and used.shadow is not None:
        yield from _unlike("the shadow batch as the curator judged it", _read(stored.shadow, Shadow), used.shadow)


def _unlike(what: str, own: Record, used: Record) -> Iterator[str]:
    if own == used:
        return
    yield f"inputs.json is not about {what}"
    places = _differences(own.model_dump(mode="json"), used.model_dump(mode="json"), "there", "in inputs.json")
    yield from (f"  differs in {place}" for place in islice(places, PLACES_MAX))


def _not_compared(stored: Stored, inputs: Inputs) -> tuple[str, ...]:
    used = inputs.report
    at_hand = {
        "report.json": stored.report is not None,
        "confirmation.json": stored.confirmation is not None or used.confirmation is None,
        # One that failed was judged by nobody.
        "the curator's judgement of the shadow batch": stored.shadow is not None
        or used.shadow is None
        or bool(used.shadow.failed),
        "the ledger": stored.ledger is not None,
        "the event's digest of the verdict": stored.told is not None,
    }
    return tuple(name for name, there in at_hand.items() if not there)


def _read(data: bytes, kind: type[R]) -> R:
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        raise JupiterError(f"the record is not readable: {error}") from error


def _object(data: bytes) -> dict[str, Any]:
    """Return a verdict as it stands: what is not one must still be told apart place by place."""
    try:
        found = json.loads(data)
    except ValueError as error:
        raise JupiterError(f"the record is not readable: {error}") from error
    if not isinstance(found, dict):
        raise JupiterError("the record is not readable: verdict.json is no JSON object")
    return found


def _differences(one: Any, other: Any, of_one: str, of_other: str, place: str = "") -> Iterator[str]:
    """Yield where two JSON values differ, as `checks[3].figure: "…" in the record, "…" recomputed`."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted({*one, *other}):
            inner = f"{place}.{key}" if place else key
            yield from _differences(one.get(key), other.get(key), of_one, of_other, inner)
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for index, pair in enumerate(zip(one, other, strict=True)):
            yield from _differences(*pair, of_one, of_other, f"{place}[{index}]")
    elif one != other:
        yield f"{place}: {one!r} {of_one}, {other!r} {of_other}"
