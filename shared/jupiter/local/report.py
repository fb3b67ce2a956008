"""What a run of the cycle came to: `demo-report.json`, every figure read back from the store or the streams.

Owns: gathering and adding up, and naming beside each figure the objects and messages that it was read from.
Does not know: how the run went about it (`demo`), and measures nothing itself.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from jupiter import keys, manifests
from jupiter.blobs import Blobs
from jupiter.bus import Bus
from jupiter.events import GeneratorLoaded, GeneratorPromoted
from jupiter.ledger import current, openings, read_ledger
from jupiter.local.losses import CHANNELS, count_lost
from jupiter.local.watch import CycleWatch
from jupiter.records import Manifest
from jupiter.reports import Confirmation, EvaluationReport, Shadow

__all__ = ["READ_FROM", "build_report"]

READ_FROM: Mapping[str, str] = {
    **dict.fromkeys(("promoted", "generator_version", "rolled_back_to", "sealed_openings", "ledger"), "ledger"),
    **dict.fromkeys(("real_ratio_by_tokens", "tokens_in_shards", "samples_accepted", "samples_generated"), "shards"),
    "drops_by_reason": "shards",
    "batches_by_version": "batches",
    "hot_reload_s": "hot_reload",
    **dict.fromkeys(("lost", "lost_by_kind"), "streams"),
}
"""Figure -> which of the report's `objects` it was read from. An evaluation names its own.

`wall_s` alone is in none: it is the run's own clock.
"""


async def build_report(
    blobs: Blobs, bus: Bus, watch: CycleWatch, *, domain: str, control: str, wall_s: float
) -> dict[str, Any]:
    """Return the report of everything that happened in `domain` so far."""
    stored = await asyncio.to_thread(_from_store, blobs, domain)
    ledger = await asyncio.to_thread(read_ledger, blobs, domain)
    promotions = [entry for entry in ledger if entry.action == "promoted"]
    live = current(ledger)
    rollbacks = [entry for entry in ledger if entry.action == "rolled_back"]
    lost = await count_lost(bus, domain=domain)
    objects, reload = stored.pop("objects"), _hot_reload(watch)
    return {
        "domain": domain,
        "control": control,
        "promoted": bool(promotions),
        "generator_version": promotions[-1].version if promotions else (live.version if live else None),
        "rolled_back_to": rollbacks[-1].version if rollbacks else None,
        "sealed_openings": len(openings(ledger)),
        **stored,
        "hot_reload_s": max((load["seconds"] for load in reload), default=None),
        "lost": sum(lost.values()),
        "lost_by_kind": lost,
        "ledger": [
            {"key": keys.ledger_key(domain, entry.sequence), **entry.model_dump(mode="json")} for entry in ledger
        ],
        "wall_s": round(wall_s, 1),
        "read_from": READ_FROM,
        "objects": {
            **objects,
            "ledger": [keys.ledger_key(domain, entry.sequence) for entry in ledger],
            "hot_reload": reload,
            "streams": [keys.subject(channel, domain) for channel in CHANNELS],
        },
    }


def _from_store(blobs: Blobs, domain: str) -> dict[str, Any]:
    """Return the figures of all shards, batches and evaluations, and under `objects` the keys they were read from."""
    shards = dict(_committed(blobs, f"shards/{domain}/"))
    details = [manifest.details for manifest in shards.values()]
    tokens = sum(one["tokens"] for one in details)
    dropped: Counter[str] = Counter()
    for one in details:
        dropped.update(one["dropped"])
    batches: dict[str, list[str]] = defaultdict(list)
    for key, manifest in _committed(blobs, f"batches/{domain}/"):
        batches[str(manifest.details["generator_version"])].append(key)
    return {
        "evaluations": sorted(_evaluations(blobs, domain), key=lambda one: (one["step"], one["evaluation_id"])),
        "not_evaluated": sorted(_not_evaluated(blobs, domain), key=lambda one: (one["step"], one["evaluation_id"])),
        "real_ratio_by_tokens": round(sum(one["real_tokens"] for one in details) / tokens, 4) if tokens else None,
        "tokens_in_shards": tokens,
        "samples_accepted": sum(one["accepted"] for one in details),
        "samples_generated": sum(one["candidates"] for one in details),
        "drops_by_reason": dict(sorted(dropped.items())),
        "batches_by_version": {version: len(found) for version, found in sorted(batches.items())},
        "objects": {
            "shards": sorted(shards),
            "batches": {version: sorted(found) for version, found in sorted(batches.items())},
        },
    }


def _committed(blobs: Blobs, prefix: str) -> Iterator[tuple[str, Manifest]]:
    for info in blobs.list(prefix):
        if info.key.endswith("/manifest.json"):
            yield info.key, manifests.read(blobs, info.key).manifest


def _evaluations(blobs: Blobs, domain: str) -> Iterator[dict[str, Any]]:
    for key, manifest in _committed(blobs, f"evaluations/{domain}/"):
        if key != keys.manifest_key(keys.evaluation_prefix(domain, manifest.work_id)):
            continue  # the sealed half or the shadow batch of an evaluation: they stand in its inputs
        file = manifest.file("report.json")
        report = EvaluationReport.model_validate_json(blobs.get(file.key))
        verdict_key = keys.verdict_key(domain, report.evaluation_id)
        verdict = json.loads(blobs.get(verdict_key)) if blobs.stat(verdict_key) else None
        inputs_key = f"{keys.evaluation_prefix(domain, report.evaluation_id)}/inputs.json"
        decided = _decided_on(blobs, inputs_key) or report
        yield {
            "evaluation_id": report.evaluation_id,
            "step": report.step,
            "generator_version": report.generator_version,
            "n": sum(item.half == "development" for item in report.items),
            "items": len(report.items),
            "candidate": report.candidate.model_dump(),
            "generator": report.generator.model_dump(),
            "difference": report.difference,
            "confidence_interval": [report.ci_low, report.ci_high],
            "verdict": verdict["decision"] if verdict else None,
            "reasons": [_check_line(check) for check in verdict["checks"]] if verdict else [],
            "confirmation": _confirmation(decided.confirmation),
            "shadow": _shadow(decided.shadow),
            "benchmark_digest": report.benchmark_digest,
            "wall_s": report.wall_s,
            "objects": {"manifest": key, "report": file.key, "verdict": verdict_key, "inputs": inputs_key},
        }


def _not_evaluated(blobs: Blobs, domain: str) -> Iterator[dict[str, Any]]:
    """Yield the verdicts on checkpoints that could not be evaluated: they are INVALID, and there is no evaluation."""
    for info in blobs.list(f"evaluations/{domain}/"):
        evaluation_id = info.key.removeprefix(f"evaluations/{domain}/").split("/")[0]
        if info.key != keys.verdict_key(domain, evaluation_id):
            continue
        if blobs.stat(keys.manifest_key(keys.evaluation_prefix(domain, evaluation_id))) is None:
            verdict = json.loads(blobs.get(info.key))
            yield {
                "evaluation_id": evaluation_id,
                "checkpoint_id": verdict["checkpoint_id"],
                "step": verdict["step"],
                "verdict": verdict["decision"],
                "reasons": [_check_line(check) for check in verdict["checks"]],
                "objects": {"verdict": info.key},
            }


def _decided_on(blobs: Blobs, inputs_key: str) -> EvaluationReport | None:
    """Return the report with what later stages put into it; None before the verdict."""
    if not blobs.stat(inputs_key):
        return None
    return EvaluationReport.model_validate(json.loads(blobs.get(inputs_key))["report"])


def _confirmation(found: Confirmation | None) -> dict[str, Any] | None:
    """What the sealed half said; None where it was not opened."""
    if found is None:
        return None
    return {
        "opening": found.opening,
        "ledger_sequence": found.ledger_sequence,
        "n": len(found.items),
        "candidate": found.candidate.model_dump(),
        "generator": found.generator.model_dump(),
        "difference": found.difference,
        "confidence_interval": [found.ci_low, found.ci_high],
        "wall_s": found.wall_s,
    }


def _shadow(found: Shadow | None) -> dict[str, Any] | None:
    """How the candidate did as a generator; None where no batch was asked for."""
    if found is None:
        return None
    sides = {"candidate": found.candidate, "incumbent": found.incumbent}
    return {
        "batch_id": found.batch_id,
        "failed": found.failed,
        **{
            name: {
                **side.model_dump(exclude={"accepted", "manifest_sha256"}),
                "accepted": sum(side.accepted),
            }
            for name, side in sides.items()
        },
        "real": dict(found.real),
    }


def _check_line(check: Mapping[str, Any]) -> str:
    return f"{check['name']}: {check['figure']} (needs {check['bound']}) — {check['outcome']}"


def _hot_reload(watch: CycleWatch) -> list[dict[str, Any]]:
    """Return every generator's load of the first promotion, and the message that tells it.

    `seconds` go from hearing of the promotion to serving it: fetch, verify, load, attest, switch.
    """
    flips = [event.ledger_sequence for event in watch.all(GeneratorPromoted) if event.previous_version is not None]
    return [
        {"subject": load.subject, "sequence": sequence, "instance": load.instance, "seconds": round(load.seconds, 2)}
        for sequence, load in watch.stored(GeneratorLoaded)
        if flips and load.ledger_sequence == flips[0]
    ]
