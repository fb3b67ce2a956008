"""When another benchmark is asked for, by the controller or by a person, and when that is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from jupiter import keys, manifests
from jupiter.controller.api.access import needed
from jupiter.controller.burials import Burials
from jupiter.controller.deps import Deps
from jupiter.controller.flips import open_sealed_half
from jupiter.controller.recall import recall_of
from jupiter.controller.renewals import Renewals
from jupiter.controller.wiring import application
from jupiter.errors import Conflict, Rejected
from jupiter.events import (
    BenchmarkFrozen,
    BenchmarkRenewalRefused,
    BenchmarkRenewalRequested,
    DocumentAccepted,
    DocumentForgotten,
)
from jupiter.records import canonical_json, digest_of
from tests.unit.controller.cases import BENCHMARK
from tests.unit.controller.cycle import Cycle, accepted
from tests.unit.controller.test_promotion import advanced, registered

USED = ("json", "math", "heapq", "bisect", "string", "random", "shelve", "zlib")
"""Sources of the first benchmark."""


async def freeze(
    cycle: Cycle, *, generation: int = 1, digest: str = BENCHMARK, sources: Sequence[str] = USED
) -> BenchmarkFrozen:
    """What the evaluator does: a benchmark of one item per source, and the event about it."""
    prefix = keys.benchmark_prefix(cycle.name, digest)
    halves = ("development", "confirmation")
    items = [
        {"item_id": f"item-{source}", "cluster": source, "half": halves[number % 2]}
        for number, source in enumerate(sources)
    ]
    file = manifests.upload_bytes(
        cycle.blobs, prefix=prefix, name="benchmark.json", data=canonical_json({"items": items})
    )
    committed = manifests.commit(
        cycle.blobs, prefix=prefix, kind="benchmark", domain=cycle.name, work_id=digest, files=(file,), details={}
    )
    event = BenchmarkFrozen(
        domain=cycle.name,
        digest=digest,
        manifest_key=committed.key,
        manifest_sha256=committed.sha256,
        items=len(items),
        clusters=len(items),
        generation=generation,
    )
    await cycle.bus.publish(event)
    return event


async def hold_out(cycle: Cycle, *sources: str, times: int = 1) -> list[DocumentAccepted]:
    """What the curator says of held-out documents."""
    made = [
        accepted(digest_of(source, number), split="held_out", domain=cycle.name).model_copy(update={"group": source})
        for source in sources
        for number in range(times)
    ]
    for event in made:
        await cycle.bus.publish(event)
    return made


async def used_up(directory: Path, **settings: Any) -> Cycle:
    """A cycle whose benchmark may be opened once, and was."""
    cycle = await registered(directory, self_improvement={"sealed_openings_max": 1, **settings})
    await freeze(cycle)
    await hold_out(cycle, *USED)
    ledger = cycle.ledger()
    open_sealed_half(
        cycle.blobs,
        cycle.name,
        evaluation_id=digest_of("evaluation"),
        benchmark_digest=BENCHMARK,
        actor="controller",
        reason="better",
        seen=len(ledger),
    )
    return cycle


async def requests(cycle: Cycle) -> list[BenchmarkRenewalRequested]:
    return [event for event in await cycle.events("benchmarks") if isinstance(event, BenchmarkRenewalRequested)]


async def refuse(cycle: Cycle, request: BenchmarkRenewalRequested, reason: str = "10 of 24 items") -> None:
    """What the evaluator says where the documents do not do."""
    fields = request.model_dump(include={"domain", "generation", "documents", "samples"})
    await cycle.bus.publish(BenchmarkRenewalRefused(**fields, reason=reason))


async def looked(cycle: Cycle) -> tuple[Deps, Renewals]:
    """One more round of a controller that has just started: nothing is remembered from round to round."""
    deps = await advanced(cycle)
    renewals = Renewals(deps)
    await renewals.advance()
    return deps, renewals


async def test_a_used_up_benchmark_is_renewed_once_there_is_something_to_renew_it_from(tmp_path: Path) -> None:
    cycle = await used_up(tmp_path)
    await hold_out(cycle, "csv", "glob", "queue")
    await looked(cycle)
    assert await requests(cycle) == []
    await hold_out(cycle, "sched", "json")
    await looked(cycle)
    (asked,) = await requests(cycle)
    assert (asked.generation, asked.documents, asked.samples) == (2, 4, 300)
    assert (asked.actor, asked.reason) == ("controller", "the sealed half is used up")
    # It is not asked again while the evaluator is at it, whatever comes.
    await hold_out(cycle, "types", "enum")
    await looked(cycle)
    assert await requests(cycle) == [asked]


async def test_after_a_refusal_it_is_asked_again_when_there_is_a_quarter_more(tmp_path: Path) -> None:
    cycle = await used_up(tmp_path)
    await hold_out(cycle, "csv", "glob", "queue", "sched", times=2)
    await looked(cycle)
    await refuse(cycle, (await requests(cycle))[0])
    await hold_out(cycle, "types")
    await looked(cycle)
    assert len(await requests(cycle)) == 1
    await hold_out(cycle, "enum")
    await looked(cycle)
    assert [asked.documents for asked in await requests(cycle)] == [8, 10]


async def test_a_new_benchmark_is_not_used_up_and_its_sources_are_not_new(tmp_path: Path) -> None:
    cycle = await used_up(tmp_path)
    later = ("csv", "glob", "queue", "sched")
    await hold_out(cycle, *later)
    await looked(cycle)
    await freeze(cycle, generation=2, digest=digest_of("second"), sources=later)
    deps, renewals = await looked(cycle)
    assert len(await requests(cycle)) == 1
    newest = deps.state.benchmark
    assert newest is not None
    assert (newest.generation, renewals.openings(newest)) == (2, 0)
    assert (await renewals.fresh()).documents == 0
    # The opening against the generator stays spent: the next one is the second, on whatever benchmark.
    second = open_sealed_half(
        cycle.blobs,
        cycle.name,
        evaluation_id=digest_of("another"),
        benchmark_digest=newest.digest,
        actor="controller",
        reason="better",
        seen=2,
    )
    assert second.opening == 2


async def test_a_person_may_ask_before_it_is_used_up(tmp_path: Path) -> None:
    cycle = await registered(tmp_path)
    await freeze(cycle)
    (late, *_) = await hold_out(cycle, "csv", "glob", "queue", "sched", "types")
    await cycle.bus.publish(
        DocumentForgotten(domain=cycle.name, document_id=late.document_id, actor="test", reason="recalled")
    )
    _, renewals = await looked(cycle)
    assert await requests(cycle) == []
    asked = await renewals.ask("anna", "items leaked", generation=1)
    assert (asked.actor, asked.reason, asked.documents) == ("anna", "items leaked", 4)
    assert await renewals.ask("ben", "likewise", generation=1) == asked
    assert await requests(cycle) == [asked]


async def test_what_can_be_known_to_fail_is_refused_at_once(tmp_path: Path) -> None:
    cycle = await registered(tmp_path)
    _, renewals = await looked(cycle)
    with pytest.raises(Conflict, match="no benchmark is frozen yet"):
        await renewals.ask("anna", "by hand", generation=1)
    await freeze(cycle)
    await hold_out(cycle, "csv", "glob", "json", times=5)
    _, renewals = await looked(cycle)
    with pytest.raises(Conflict, match="generation 1 is in use, not 2"):
        await renewals.ask("anna", "by hand", generation=2)
    with pytest.raises(Rejected, match="10 held-out documents from 2 sources are new; a sealed half needs 4 sources"):
        await renewals.ask("anna", "by hand", generation=1)
    assert await requests(cycle) == []


async def test_a_question_that_was_answered_is_not_asked_again(tmp_path: Path) -> None:
    cycle = await registered(tmp_path)
    await freeze(cycle)
    await hold_out(cycle, "csv", "glob", "queue", "sched")
    _, renewals = await looked(cycle)
    await refuse(cycle, await renewals.ask("anna", "by hand", generation=1))
    deps, renewals = await looked(cycle)
    with pytest.raises(Rejected, match="refused with the same documents: 10 of 24 items"):
        await renewals.ask("anna", "by hand", generation=1)
    # A smaller benchmark is another question.
    smaller = deps.config.self_improvement.model_copy(update={"benchmark_samples": 100})
    cycle.config = cycle.config.model_copy(update={"self_improvement": smaller})
    _, renewals = await looked(cycle)
    assert (await renewals.ask("anna", "by hand", generation=1)).samples == 100
    assert len(await requests(cycle)) == 2


async def test_a_benchmark_that_cannot_be_read_stops_no_round(tmp_path: Path) -> None:
    cycle = await used_up(tmp_path)
    await hold_out(cycle, "csv", "glob", "queue", "sched")
    cycle.blobs.delete(keys.manifest_key(keys.benchmark_prefix(cycle.name, BENCHMARK)))
    _, renewals = await looked(cycle)
    assert await requests(cycle) == []
    with pytest.raises(Rejected, match="cannot be read"):
        await renewals.ask("anna", "by hand", generation=1)


async def test_a_request_that_ended_in_the_dead_letters_is_refused_with_the_reason(tmp_path: Path) -> None:
    cycle = await used_up(tmp_path)
    await hold_out(cycle, "csv", "glob", "queue", "sched")
    await looked(cycle)
    subject = keys.subject("benchmarks", cycle.name)
    async for delivery in cycle.bus.consume(subject, durable="evaluator", max_ack_pending=10):
        if delivery.headers["ce-type"] == BenchmarkRenewalRequested.type_name():
            await cycle.bus.bury(delivery, service="evaluator", reason="the sandbox died")
            break
    deps, renewals = await looked(cycle)
    await Burials(deps).give_up()
    _, renewals = await looked(cycle)
    refused = renewals.refusal(2)
    assert refused is not None
    assert refused.reason.endswith("of the evaluator: the sandbox died")
    assert renewals.pending(2) is None


async def test_recall_names_the_items_of_every_generation(tmp_path: Path) -> None:
    cycle = await registered(tmp_path)
    await freeze(cycle)
    await freeze(cycle, generation=2, digest=digest_of("second"), sources=("csv", "glob"))
    first, second = await hold_out(cycle, "json", "csv")
    deps, _ = await looked(cycle)
    assert (await recall_of(deps, first.document_id)).benchmark_items == ("item-json",)
    assert (await recall_of(deps, second.document_id)).benchmark_items == ("item-csv",)


async def test_the_api_shows_what_is_spent_and_asks(tmp_path: Path) -> None:
    cycle = await used_up(tmp_path)
    await freeze(cycle, generation=2, digest=digest_of("second"), sources=("csv", "glob"))
    assert needed("POST", "/v1/benchmark/renew") == "operate"
    deps, _ = await looked(cycle)
    transport = httpx.ASGITransport(app=application(deps))
    async with httpx.AsyncClient(transport=transport, base_url="http://controller") as client:
        shown = (await client.get("/v1/benchmark")).json()
        assert [(one["generation"], one["openings"]) for one in shown["generations"]] == [(1, 1), (2, 0)]
        assert (shown["openings_max"], shown["fresh_documents"], shown["renewal"]) == (1, 0, None)
        few = await client.post("/v1/benchmark/renew", json={"expected_generation": 2})
        assert few.status_code == 422
        assert "0 held-out documents from 0 sources are new" in few.json()["error"]["message"]
        await hold_out(cycle, "queue", "sched", "types", "enum")
        await deps.following.catch_up("corpus")
        assert (await client.post("/v1/benchmark/renew", json={"expected_generation": 1})).status_code == 409
        asked = await client.post("/v1/benchmark/renew", json={"expected_generation": 2, "actor": "anna"})
        assert asked.json()["renewal"] == {
            "generation": 3,
            "actor": "anna",
            "reason": "by hand",
            "documents": 4,
            "refused": None,
        }
        await refuse(cycle, (await requests(cycle))[-1])
        await deps.following.catch_up("benchmarks")
        assert (await client.get("/v1/benchmark")).json()["renewal"]["refused"] == "10 of 24 items"


async def test_without_a_benchmark_there_is_nothing_to_show(tmp_path: Path) -> None:
    deps = await advanced(Cycle(tmp_path))
    transport = httpx.ASGITransport(app=application(deps))
    async with httpx.AsyncClient(transport=transport, base_url="http://controller") as client:
        assert (await client.get("/v1/benchmark")).status_code == 404
