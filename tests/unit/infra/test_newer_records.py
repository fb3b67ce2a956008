"""Records that a newer release wrote: what it added is passed over and passed on, and user input stays strict."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from jupiter import generations, keys, manifests
from jupiter.blobs.memory import MemoryBlobs
from jupiter.bus.codec import decode, encode, encode_dead_letter, read_dead_letter
from jupiter.bus.memory import MemoryBus
from jupiter.config.sections import ControllerSection
from jupiter.contamination import ShardCount, find_count
from jupiter.controller.evidence import Evidence, Inputs
from jupiter.controller.gate import decide
from jupiter.controller.replaying import Stored, replayed
from jupiter.errors import IntegrityError
from jupiter.events import EvaluationCompleted, GenerationItem, GenerationRequested
from jupiter.generations import Pointer
from jupiter.records import (
    Document,
    Manifest,
    PublishedDocument,
    Record,
    Sample,
    Sampling,
    SharedRecord,
    canonical_json,
    digest_of,
)
from jupiter.reports import EvaluationReport
from jupiter.withdrawals import Omission, Quarantine, Withdrawn
from tests.integration.infra.bus_contract import shard
from tests.unit.controller.cases import DOMAIN, better, history, improvement, items, report

ADDED = {"not_known_yet": {"since": [1.5, "x"]}}


def newer(value: Any) -> Any:
    """Return a record as JSON with a field more, and every record within it likewise."""
    if isinstance(value, tuple):
        return [newer(inner) for inner in value]
    if isinstance(value, BaseModel):
        return {**{name: newer(inner) for name, inner in value}, **ADDED}
    return value


def sample(**changes: Any) -> Sample:
    made = {"sample_id": digest_of("s"), "origin": "synthetic", "instruction": "q", "response": "a", "task": "need"}
    return Sample.model_validate({**made, "document_id": digest_of("d"), "sampling": Sampling(), **changes})


RECORDS = (
    sample(),
    Document(
        document_id=digest_of("d"),
        domain=DOMAIN,
        text="t",
        source="s",
        title=None,
        kind="text",
        group="g",
        split="training",
    ),
    Manifest(
        kind="batch",
        domain=DOMAIN,
        work_id="w",
        created_at="now",
        files=(manifests.upload_bytes(MemoryBlobs(), prefix="p", name="n", data=b"1"),),
    ),
    Pointer(digest="d", manifest_key="k", manifest_sha256="s"),
    ShardCount(benchmark="b", synthetic=1, real=2),
    Omission(shard_sequence=3, withdrawn=Withdrawn(quarantined=(Quarantine(version=2, request_sequence_max=9),))),
    report(items(better, count=12)),
)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_what_a_newer_release_added_is_passed_over_and_passed_on_as_it_came(record: SharedRecord) -> None:
    stored = canonical_json(newer(record))
    read = type(record).model_validate_json(stored)
    assert all(getattr(read, name) is not None for name, value in record if value is not None)
    assert canonical_json(read) == stored


def test_a_manifest_is_read_unless_it_says_that_its_meaning_is_another() -> None:
    blobs = MemoryBlobs()
    body = newer(RECORDS[2])
    blobs.put("newer", canonical_json(body))
    assert manifests.read(blobs, "newer").manifest.file("n").size == 1
    blobs.put("changed", canonical_json({**body, "schema_version": 2}))
    with pytest.raises(IntegrityError, match="schema_version"):
        manifests.read(blobs, "changed")


def test_pointers_and_counts_of_a_newer_release_are_found() -> None:
    blobs = MemoryBlobs()
    pointer, count = RECORDS[3], RECORDS[4]
    blobs.put(keys.benchmark_pointer_key(DOMAIN, 1), canonical_json(newer(pointer)))
    blobs.put(keys.count_key(DOMAIN, "b", "shard"), canonical_json(newer(count)))
    assert [one.digest for one in generations.pointers(blobs, DOMAIN)] == ["d"]
    found = find_count(blobs, DOMAIN, "shard", benchmark_digest="b")
    assert found is not None
    assert found.samples == 3


def test_a_request_whose_items_say_more_is_read() -> None:
    item = GenerationItem(document_id=digest_of("d"), chunk_index=0, task="need", audience="a", difficulty="d", seed=1)
    event = GenerationRequested(
        domain="birds", request_id=digest_of("r"), generator_version=1, sequence=1, items=(item,), sampling=Sampling()
    )
    encoded = encode(event, source="test")
    read = decode(canonical_json(newer(event)), encoded.headers)
    assert isinstance(read, GenerationRequested)
    assert (read.items[0].task, read.sampling.top_p) == ("need", Sampling().top_p)


async def test_a_dead_letter_that_says_more_is_read() -> None:
    bus = MemoryBus()
    await bus.publish(shard("birds", 3))
    async for delivery in bus.consume("shards.birds", durable="trainer", max_ack_pending=1):
        letter = encode_dead_letter(delivery, service="trainer", reason="too new")
        break
    [name] = letter.headers
    said = {name: json.dumps({**json.loads(letter.headers[name]), **ADDED})}
    assert read_dead_letter(1, letter.data, said) == read_dead_letter(1, letter.data, letter.headers)


def completed(blobs: MemoryBlobs, known: EvaluationReport, data: bytes) -> EvaluationCompleted:
    """Store a report as an evaluator does and return its event."""
    prefix = keys.evaluation_prefix(DOMAIN, known.evaluation_id)
    committed = manifests.commit(
        blobs,
        prefix=prefix,
        kind="evaluation",
        domain=DOMAIN,
        work_id=known.evaluation_id,
        files=(manifests.upload_bytes(blobs, prefix=prefix, name="report.json", data=data),),
        details={},
    )
    return EvaluationCompleted(
        domain=DOMAIN,
        evaluation_id=known.evaluation_id,
        checkpoint_id=known.checkpoint_id,
        run=known.run,
        step=known.step,
        generator_version=known.generator_version,
        benchmark_digest=known.benchmark_digest,
        items=len(known.items),
        candidate_score=known.candidate.composite,
        generator_score=known.generator.composite,
        difference=known.difference,
        ci_low=known.ci_low,
        ci_high=known.ci_high,
        manifest_key=committed.key,
        manifest_sha256=committed.sha256,
    )


def test_a_report_of_a_newer_evaluator_is_decided_on_and_the_record_holds_all_of_it() -> None:
    """Else `replay` would say of an honest record that it is not about the evaluator's report."""
    blobs = MemoryBlobs()
    known = report(items(better, count=120))
    data = canonical_json(newer(known))
    evidence = Evidence(blobs, DOMAIN)
    found = evidence.report(completed(blobs, known, data))
    assert found.difference == known.difference
    verdict = evidence.settle(Inputs(report=found, history=history(), config=improvement()))
    assert verdict.checks == decide(known, history(), improvement()).checks
    inputs, stored = evidence.stored(known.evaluation_id)
    assert inputs is not None
    assert replayed(Stored(inputs=inputs, verdict=stored, report=data)).faults == ()


def test_a_report_whose_meaning_changed_is_refused() -> None:
    with pytest.raises(ValidationError, match="schema_version"):
        EvaluationReport.model_validate({**RECORDS[6].model_dump(), "schema_version": 2})


def test_what_users_write_is_strict() -> None:
    assert not issubclass(PublishedDocument, SharedRecord)
    assert Record.model_config["extra"] == "forbid"
    with pytest.raises(ValidationError, match="titel"):
        PublishedDocument.model_validate({"text": "t", "source": "s", "titel": "x"})
    with pytest.raises(ValidationError, match="unknown: temprature"):
        ControllerSection.model_validate({"sampling": {"temprature": 1}})
