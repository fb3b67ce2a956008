"""What a run of the cycle came to: `demo-report.json`, every figure read back from the store or the streams.

Owns: gathering and adding up. Does not know: how the run went about it (`demo`), and measures nothing itself.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from jupiter import keys, manifests
from jupiter.blobs import Blobs
from jupiter.bus import Bus
from jupiter.events import (
    BatchGenerated,
    DocumentAccepted,
    GenerationRequested,
    GenerationVoided,
    GeneratorLoaded,
    GeneratorPromoted,
    GeneratorRolledBack,
    ShardCurated,
)
from jupiter.ledger import read_ledger
from jupiter.local.watch import CycleWatch
from jupiter.records import Manifest
from jupiter.reports import EvaluationReport, deciding

__all__ = ["build_report", "count_lost"]


async def build_report(
    blobs: Blobs, bus: Bus, watch: CycleWatch, *, domain: str, control: str, wall_s: float
) -> dict[str, Any]:
    """Return the report of everything that happened in `domain` so far."""
    stored = await asyncio.to_thread(_from_store, blobs, domain)
    ledger = await asyncio.to_thread(read_ledger, blobs, domain)
    promotions = [entry for entry in ledger if entry.action == "promoted"]
    rollbacks = [entry for entry in ledger if entry.action == "rolled_back"]
    lost = await count_lost(bus, watch, domain=domain)
    return {
        "domain": domain,
        "control": control,
        "promoted": bool(promotions),
        "generator_version": promotions[-1].version if promotions else (ledger[-1].version if ledger else None),
        "rolled_back_to": rollbacks[-1].version if rollbacks else None,
        **stored,
        "hot_reload_s": _hot_reload_s(watch),
        "lost": sum(lost.values()),
        "lost_by_kind": lost,
        "ledger": [
            {"key": keys.ledger_key(domain, entry.sequence), **entry.model_dump(mode="json")} for entry in ledger
        ],
        "wall_s": round(wall_s, 1),
    }


def _from_store(blobs: Blobs, domain: str) -> dict[str, Any]:
    shards = [manifest.details for _, manifest in _committed(blobs, f"shards/{domain}/")]
    tokens = sum(details["tokens"] for details in shards)
    dropped: Counter[str] = Counter()
    for details in shards:
        dropped.update(details["dropped"])
    versions = Counter(
        str(manifest.details["generator_version"]) for _, manifest in _committed(blobs, f"batches/{domain}/")
    )
    return {
        "evaluations": sorted(_evaluations(blobs, domain), key=lambda one: (one["step"], one["evaluation_id"])),
        "real_ratio_by_tokens": round(sum(details["real_tokens"] for details in shards) / tokens, 4)
        if tokens
        else None,
        "tokens_in_shards": tokens,
        "samples_accepted": sum(details["accepted"] for details in shards),
        "samples_generated": sum(details["candidates"] for details in shards),
        "drops_by_reason": dict(sorted(dropped.items())),
        "batches_by_version": dict(sorted(versions.items())),
        "objects": {
            "batches": f"batches/{domain}/<id>/manifest.json",
            "shards": f"shards/{domain}/<id>/manifest.json",
            "ledger": keys.ledger_prefix(domain),
        },
    }


def _committed(blobs: Blobs, prefix: str) -> Iterator[tuple[str, Manifest]]:
    for info in blobs.list(prefix):
        if info.key.endswith("/manifest.json"):
            yield info.key, manifests.read(blobs, info.key).manifest


def _evaluations(blobs: Blobs, domain: str) -> Iterator[dict[str, Any]]:
    for key, manifest in _committed(blobs, f"evaluations/{domain}/"):
        file = manifest.file("report.json")
        report = EvaluationReport.model_validate_json(blobs.get(file.key))
        verdict_key = keys.verdict_key(domain, report.evaluation_id)
        verdict = json.loads(blobs.get(verdict_key)) if blobs.stat(verdict_key) else None
        yield {
            "evaluation_id": report.evaluation_id,
            "step": report.step,
            "generator_version": report.generator_version,
            "n": len(deciding(report.items)),
            "items": len(report.items),
            "candidate": report.candidate.model_dump(),
            "generator": report.generator.model_dump(),
            "difference": report.difference,
            "confidence_interval": [report.ci_low, report.ci_high],
            "verdict": verdict["decision"] if verdict else None,
            "reasons": [_check_line(check) for check in verdict["checks"]] if verdict else [],
            "benchmark_digest": report.benchmark_digest,
            "wall_s": report.wall_s,
            "objects": {"manifest": key, "report": file.key, "verdict": verdict_key},
        }


def _check_line(check: Mapping[str, Any]) -> str:
    return f"{check['name']}: {check['figure']} (needs {check['bound']}) — {check['outcome']}"


def _hot_reload_s(watch: CycleWatch) -> float | None:
    """Seconds from a generator hearing of the first promotion to serving it: fetch, verify, load, attest, switch."""
    flips = [event.ledger_sequence for event in watch.all(GeneratorPromoted) if event.previous_version is not None]
    loads = [event for event in watch.all(GeneratorLoaded) if flips and event.ledger_sequence == flips[0]]
    return round(max(event.seconds for event in loads), 2) if loads else None


async def count_lost(bus: Bus, watch: CycleWatch, *, domain: str) -> dict[str, int]:
    """Return, per kind of work, what the consumers have acked and that left no trace: it must be 0 of each.

    What is still waiting is asked of the server (the durable consumer's unacked messages), not derived from the rest.
    """
    dead = Counter(letter.subject for letter in await bus.dead_letters(limit=10_000))
    requested = {event.request_id for event in watch.all(GenerationRequested)}
    batches = {event.batch_id for event in watch.all(BatchGenerated)}
    voided = {event.request_id for event in watch.all(GenerationVoided)}
    shards = {event.batch_id for event in watch.all(ShardCurated)}
    waiting = {
        channel: await bus.backlog(keys.subject(channel, domain), durable=durable)
        for channel, durable in (("generation", "generator"), ("batches", "curator-batches"))
    }
    unmade = len(requested - batches - voided) - dead[keys.subject("generation", domain)] - waiting["generation"]
    uncurated = len(batches - shards) - dead[keys.subject("batches", domain)] - waiting["batches"]
    flips = [event.ledger_sequence for event in watch.all(GeneratorPromoted)]
    flips += [event.ledger_sequence for event in watch.all(GeneratorRolledBack)]
    return {
        "requests": max(0, unmade),
        "batches": max(0, uncurated),
        "documents_doubled": len(watch.all(DocumentAccepted))
        - len({e.document_id for e in watch.all(DocumentAccepted)}),
        "flips_doubled": len(flips) - len(set(flips)),
    }
