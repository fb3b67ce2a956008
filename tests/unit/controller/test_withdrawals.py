"""Rollback with quarantine, rewind, recall and lineage, through the API of a running controller."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jupiter import keys, manifests
from jupiter.cli.lineage_tree import lineage_lines, recall_lines, withdrawal_lines
from jupiter.events import (
    BatchGenerated,
    CheckpointSaved,
    DocumentForgotten,
    RewindRequested,
    ShardCurated,
    VersionQuarantined,
)
from jupiter.records import Sample, digest_of
from jupiter.sample_files import write_parquet
from jupiter.withdrawals import Omission, Withdrawn
from tests.unit.controller.cases import BENCHMARK
from tests.unit.controller.cycle import Cycle, registered
from tests.unit.controller.test_controller_api import body, serving

WAIT_S_MAX = 20.0
DOCUMENT = digest_of("document", 0)


def sample(number: int, origin: str, *, document_id: str = DOCUMENT, template: str = "explain/1") -> Sample:
    return Sample.model_validate(
        {
            "sample_id": digest_of("sample", number, origin),
            "origin": origin,
            "instruction": "What is it?",
            "response": "It is a thing.",
            "document_id": document_id,
            "task": "explain",
            "template": template if origin == "synthetic" else None,
        }
    )


async def shard_of(cycle: Cycle, batch: BatchGenerated, number: int, *, others: Sequence[Sample] = ()) -> ShardCurated:
    """Commit and publish a shard with two synthetic samples of the document and one real, and `others`, synthetic."""
    prefix = keys.shard_prefix(cycle.name, batch.batch_id)
    made = [sample(10 * number, "synthetic"), sample(10 * number + 1, "synthetic"), *others]
    samples = [*made, sample(number, "real")]
    file = manifests.upload_bytes(cycle.blobs, prefix=prefix, name="samples.parquet", data=write_parquet(samples))
    committed = manifests.commit(
        cycle.blobs,
        prefix=prefix,
        kind="shard",
        domain=cycle.name,
        work_id=batch.batch_id,
        files=(file,),
        details={
            "documents": Counter(one.document_id for one in made),
            "templates": Counter(one.template for one in made),
            "real_documents": {DOCUMENT: [0]},
            "generator_version": batch.generator_version,
            "batch_sequence": batch.sequence,
            "contamination": {"benchmark": BENCHMARK, "synthetic": 0, "real": 0, "items": {}},
        },
    )
    event = ShardCurated(
        domain=cycle.name,
        shard_id=batch.batch_id,
        batch_id=batch.batch_id,
        generator_version=batch.generator_version,
        manifest_key=committed.key,
        manifest_sha256=committed.sha256,
        samples=len(samples),
        tokens=30,
        real_tokens=10,
        accepted=len(made),
        candidates=len(made),
        batch_sequence=batch.sequence,
    )
    await cycle.bus.publish(event)
    return event


async def checkpoint(
    cycle: Cycle, step: int, shards: list[ShardCurated], *, omissions: tuple[Omission, ...] = (), run: str = "run1"
) -> CheckpointSaved:
    prefix = keys.checkpoint_prefix(cycle.name, run, step)
    weights = manifests.upload_bytes(cycle.blobs, prefix=prefix, name="model/model.safetensors", data=b"%d" % step)
    committed = manifests.commit(
        cycle.blobs,
        prefix=prefix,
        kind="checkpoint",
        domain=cycle.name,
        work_id=digest_of(cycle.name, run, step),
        files=(weights,),
        details={
            "run": run,
            "step": step,
            "shards": [shard.shard_id for shard in shards],
            "omissions": [one.model_dump(mode="json") for one in omissions],
        },
    )
    saved = CheckpointSaved(
        domain=cycle.name,
        checkpoint_id=committed.manifest.work_id,
        run=run,
        step=step,
        tokens_seen=step,
        loss=1.0,
        shard_sequence=len(shards),
        manifest_key=committed.key,
        manifest_sha256=committed.sha256,
    )
    await cycle.bus.publish(saved)
    return saved


async def post(client: Any, path: str, **content: Any) -> Any:
    response = await client.post(path, json=content)
    assert response.status_code == 200, response.text
    return response.json()


async def until(what: Callable[[], Awaitable[Any]]) -> Any:
    async with asyncio.timeout(WAIT_S_MAX):
        while not (found := await what()):  # noqa: ASYNC110 - what is waited for is in another task
            await asyncio.sleep(0.02)
    return found


async def promoted(client: Any, saved: CheckpointSaved) -> None:
    """Promote the checkpoint over version 1, as soon as the controller knows it."""
    content = {"checkpoint_id": saved.checkpoint_id, "expected_version": 1, "force": True}

    async def known() -> bool:
        return bool((await client.post("/v1/promote", json=content)).status_code == 200)

    await until(known)


async def test_a_rollback_takes_the_data_back_and_sends_the_trainer_to_the_last_clean_checkpoint(
    tmp_path: Path,
) -> None:
    cycle = Cycle(tmp_path)
    async with serving(cycle) as client:
        await registered(cycle)
        old = await shard_of(cycle, await cycle.make_batch(), 1)
        clean = await checkpoint(cycle, 10, [old])
        await promoted(client, clean)
        bad = await shard_of(cycle, await cycle.make_batch(), 2)
        unshared = await cycle.make_batch()
        dirty = await checkpoint(cycle, 20, [old, bad])
        assert unshared.generator_version == 2
        await until(lambda: all_known(client, dirty))
        refused = await client.post("/v1/rollback", json={"expected_version": 2, "rewind": True})
        assert refused.status_code == 422
        entry = await post(client, "/v1/rollback", expected_version=2, quarantine=True, rewind=True)

        taken = await body(client, f"/v1/withdrawals/{entry['sequence']}")
        assert taken["version"] == 2
        assert [one["batch_id"] for one in taken["batches"]] == [bad.batch_id, unshared.batch_id]
        assert [one["shard_id"] for one in taken["shards"]] == [bad.shard_id]
        assert [(one["step"], one["shards"]) for one in taken["checkpoints"]] == [(20, 1)]
        assert (taken["clean"]["checkpoint_id"], taken["clean"]["version"]) == (clean.checkpoint_id, 2)
        text = "\n".join(withdrawal_lines(taken))
        assert "run1 step 20" in text
        assert f"goes back to run1 step 10 ({clean.checkpoint_id[:12]})" in text
        assert f"run1-rewound-{entry['sequence']}" in text

        async def told() -> list[Any]:
            found = await cycle.events("withdrawals")
            return found if len(found) == 2 else []

        quarantine, rewind = await until(told)
        assert isinstance(quarantine, VersionQuarantined)
        assert (quarantine.version, quarantine.request_sequence_max) == (2, unshared.sequence)
        assert isinstance(rewind, RewindRequested)
        assert (rewind.run, rewind.checkpoint_id) == ("run1", clean.checkpoint_id)
    async with serving(cycle) as client:  # a controller that starts again tells nobody twice
        assert (await body(client, f"/v1/withdrawals/{entry['sequence']}"))["announced"]
        missing = await client.get("/v1/withdrawals/1")
        assert missing.status_code == 404
    assert len(await cycle.events("withdrawals")) == 2


async def all_known(client: Any, saved: CheckpointSaved) -> bool:
    return bool((await client.get(f"/v1/lineage/{saved.checkpoint_id}")).status_code == 200)


async def test_a_recalled_document_is_asked_for_no_more_and_all_that_came_from_it_is_listed(tmp_path: Path) -> None:
    cycle = Cycle(tmp_path)
    async with serving(cycle) as client:
        await registered(cycle)
        await cycle.publish_documents(3)
        first = await shard_of(cycle, await cycle.make_batch(), 1)
        second = await shard_of(cycle, await cycle.make_batch(), 2)
        learned = await checkpoint(cycle, 10, [first])
        spared = Omission(shard_sequence=1, withdrawn=Withdrawn(sequence=1, forgotten=(DOCUMENT,)))
        other = await checkpoint(cycle, 10, [first, second], omissions=(spared,), run="run2")
        await promoted(client, learned)
        await until(lambda: all_known(client, other))
        for name in (DOCUMENT, DOCUMENT[:8]):
            recall = await post(client, f"/v1/documents/{quote(name, safe='')}/forget", reason="asked")
            assert recall["forgotten"]
            assert [len(one["synthetic"]) for one in recall["shards"]] == [2, 2]
            assert [(one["run"], one["step"]) for one in recall["checkpoints"]] == [("run1", 10)]
            assert recall["versions"] == [2]
        assert "already in weights of v2" in "\n".join(recall_lines(recall))
        events = await cycle.events("withdrawals")
        assert [type(event) for event in events] == [DocumentForgotten]
        assert (await body(client, f"/v1/lineage/{DOCUMENT[:8]}"))["document_id"] == DOCUMENT
        assert (await client.post("/v1/documents/none/forget", json={})).status_code == 404
        assert (await client.get("/v1/lineage/nothing")).status_code == 404


async def test_lineage_goes_from_a_version_to_documents_and_templates(tmp_path: Path) -> None:
    cycle = Cycle(tmp_path)
    async with serving(cycle) as client:
        await registered(cycle)
        await cycle.publish_documents(2)
        shards = [await shard_of(cycle, await cycle.make_batch(), number) for number in (1, 2)]
        saved = await checkpoint(cycle, 10, shards)
        await promoted(client, saved)
        found = await body(client, "/v1/lineage/v2")
        assert found["checkpoint_id"] == saved.checkpoint_id
        assert [one["shard_id"] for one in found["shards"]] == [shard.shard_id for shard in shards]
        assert found["versions"] == [{"generator_version": 1, "batches": 2, "synthetic": 4}]
        assert found["templates"] == {"explain/1": 4}
        assert [(one["document_id"], one["synthetic"], one["real"]) for one in found["documents"]] == [(DOCUMENT, 4, 2)]
        lines = lineage_lines(found)
        assert lines[0] == "v2"
        assert any("2 shards: 4 synthetic samples, 2 real passages" in line for line in lines)
        assert (await body(client, "/v1/lineage/1"))["checkpoint_id"] is None
        assert (await client.get("/v1/lineage/v9")).status_code == 404
        assert (await body(client, f"/v1/lineage/{saved.checkpoint_id[:10]}"))["version"] == 2
        assert {one["samples"] for one in found["shards"]} == {None}
        named = await body(client, "/v1/lineage/v2", samples="true")
        assert [
            [(one["sample_id"], one["origin"], one["template"]) for one in shard["samples"]]
            for shard in named["shards"]
        ] == [
            [
                (digest_of("sample", 10 * number, "synthetic"), "synthetic", "explain/1"),
                (digest_of("sample", 10 * number + 1, "synthetic"), "synthetic", "explain/1"),
                (digest_of("sample", number, "real"), "real", None),
            ]
            for number in (1, 2)
        ]


async def test_what_the_run_left_out_is_in_no_figure_of_its_lineage(tmp_path: Path) -> None:
    """The document was forgotten between the two shards: of the second only the other document was learned."""
    cycle = Cycle(tmp_path)
    other = digest_of("document", 1)
    async with serving(cycle) as client:
        await registered(cycle)
        await cycle.publish_documents(2)
        extra = [sample(100 + number, "synthetic", document_id=other, template="ask/1") for number in range(3)]
        shards = [await shard_of(cycle, await cycle.make_batch(), number, others=extra) for number in (1, 2)]
        spared = Omission(shard_sequence=2, withdrawn=Withdrawn(sequence=1, forgotten=(DOCUMENT,)))
        saved = await checkpoint(cycle, 10, shards, omissions=(spared,))
        await until(lambda: all_known(client, saved))
        found = await body(client, f"/v1/lineage/{saved.checkpoint_id}", samples="true")
        assert [(one["synthetic"], one["real"]) for one in found["shards"]] == [(5, 1), (3, 0)]
        assert found["versions"] == [{"generator_version": 1, "batches": 2, "synthetic": 8}]
        assert found["templates"] == {"ask/1": 6, "explain/1": 2}
        assert {one["document_id"]: (one["synthetic"], one["real"]) for one in found["documents"]} == {
            DOCUMENT: (2, 1),
            other: (6, 0),
        }
        assert [{one["document_id"] for one in shard["samples"]} for shard in found["shards"]] == [
            {DOCUMENT, other},
            {other},
        ]
