"""Garbage collection: what must stay, stays."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupiter import keys
from jupiter.controller.collection import StoredCheckpoint, base_collectable, collectable, delete
from jupiter.controller.conductor import Conductor
from jupiter.controller.flips import Request, flip_to_checkpoint
from jupiter.errors import Rejected
from jupiter.manifests import read
from jupiter.records import digest_of
from tests.unit.controller.cases import BENCHMARK, DOMAIN, equal, first_entry, items
from tests.unit.controller.cycle import Cycle, Killed, MeddledBlobs, Mortal
from tests.unit.controller.test_promotion import advanced, live_versions, registered, seen_through

OPENING = {"evaluation_id": digest_of("e"), "benchmark_digest": BENCHMARK, "opening": 1}

checkpoints = st.lists(
    st.builds(
        StoredCheckpoint,
        checkpoint_id=st.text("abcdefgh", min_size=1, max_size=3),
        run=st.sampled_from(["run1", "run2"]),
        step=st.integers(1, 50),
        evaluation=st.sampled_from(["none", "open", "judged", "wanted"]),
    ),
    max_size=15,
    unique_by=(lambda c: c.checkpoint_id, lambda c: (c.run, c.step)),
)


@given(stored=checkpoints, keep=st.integers(1, 5), data=st.data())
def test_only_old_judged_and_unreferred_checkpoints_go(
    stored: list[StoredCheckpoint], keep: int, data: st.DataObject
) -> None:
    referred = data.draw(st.sets(st.sampled_from([c.checkpoint_id for c in stored]))) if stored else set()
    gone = collectable(stored, referred=referred, keep_last_n=keep)
    assert all(checkpoint.evaluation == "judged" for checkpoint in gone)
    assert not {checkpoint.checkpoint_id for checkpoint in gone} & referred
    for checkpoint in gone:
        newer = [c for c in stored if c.run == checkpoint.run and c.step > checkpoint.step]
        assert len(newer) >= keep
    # Asked again about what is left, there is nothing more to do.
    left = [c for c in stored if c not in gone]
    assert collectable(left, referred=referred, keep_last_n=keep) == ()


def test_base_weights_go_only_when_allowed_and_long_unused() -> None:
    versions = [1, 2, 3, 4, 5]
    entries = [first_entry(sequence=n, version=version) for n, version in enumerate(versions, start=1)]
    assert not base_collectable(entries, always_keep=True, keep_last_n=3)
    assert base_collectable(entries, always_keep=False, keep_last_n=3)
    assert not base_collectable(entries[:4], always_keep=False, keep_last_n=3)
    opened = [*entries[:4], *(first_entry(sequence=n, version=4, action="opened", **OPENING) for n in (5, 6, 7))]
    assert not base_collectable(opened, always_keep=False, keep_last_n=3), "openings are no flips"
    back = [*entries, first_entry(sequence=6, version=1)]
    assert not base_collectable(back, always_keep=False, keep_last_n=3)


async def test_a_killed_collection_is_finished_by_the_next(tmp_path: Path) -> None:
    whole = Mortal()
    await _judged(tmp_path, whole)
    assert whole.writes >= 5
    for lifetime in range(whole.writes):
        cycle = await _judged(tmp_path, Mortal(lifetime))
        await Conductor(await advanced(cycle)).collect_once()
        stored = {info.key.split("/")[3] for info in cycle.blobs.list(f"checkpoints/{DOMAIN}/")}
        # 100 became version 2; 300 and 400 are the newest two.
        assert stored == {"000000100", "000000300", "000000400"}
        for info in cycle.blobs.list(f"checkpoints/{DOMAIN}/"):
            if info.key.endswith("manifest.json"):
                assert all(cycle.blobs.stat(ref.key) for ref in read(cycle.blobs, info.key).manifest.files)
        for entry in cycle.ledger():
            assert all(cycle.blobs.stat(ref.key) for ref in read(cycle.blobs, entry.manifest_key).manifest.files)


@pytest.mark.parametrize("moment", ["the version is created", "the ledger is written"])
async def test_a_checkpoint_that_is_collected_while_it_is_promoted_by_force(tmp_path: Path, moment: str) -> None:
    """Another controller collects: until the version is created it finds no use of the files, from then on it does."""
    cycle = await registered(tmp_path)
    saved = await cycle.save_checkpoint(100)
    spare = StoredCheckpoint(checkpoint_id=saved.checkpoint_id, run=saved.run, step=saved.step, evaluation="judged")
    created = moment == "the ledger is written"
    blobs: Any = MeddledBlobs(
        cycle.blobs,
        call="create",
        key=keys.ledger_key(DOMAIN, 2) if created else keys.manifest_key(keys.generator_prefix(DOMAIN, 2)),
        meddle=lambda: delete(cycle.blobs, DOMAIN, [spare]),
    )
    request = Request(actor="ada", reason="by hand", action="promoted", expected_version=1)
    named = {"manifest_key": saved.manifest_key, "manifest_sha256": saved.manifest_sha256}
    with nullcontext() if created else pytest.raises(Rejected, match="no longer stored"):
        flip_to_checkpoint(blobs, DOMAIN, request, checkpoint_id=saved.checkpoint_id, **named)
    assert live_versions(cycle) == ([1, 2] if created else [1])
    for entry in cycle.ledger():
        assert all(cycle.blobs.stat(ref.key) for ref in read(cycle.blobs, entry.manifest_key).manifest.files)


async def _judged(directory: Path, life: Mortal) -> Cycle:
    """Four judged checkpoints, the first of which was promoted and then rolled back; collected, perhaps not wholly."""
    cycle = await registered(directory, self_improvement={"keep_last_n_checkpoints": 2})
    await seen_through(cycle, await cycle.evaluate(await cycle.save_checkpoint(100)))
    for step in (200, 300, 400):
        await cycle.evaluate(await cycle.save_checkpoint(step), items(equal))
    deps = await advanced(cycle)
    runtime = cycle.runtime(life)
    deps.runtime = runtime
    with suppress(Killed):
        await Conductor(deps).collect_once()
    return cycle


async def test_checkpoint_that_waits_for_its_evaluation_or_for_approval_stays(tmp_path: Path) -> None:
    cycle = await registered(tmp_path, self_improvement={"keep_last_n_checkpoints": 1, "mode": "approve"})
    # PROMOTE: waits for a person.
    await seen_through(cycle, await cycle.evaluate(await cycle.save_checkpoint(100)))
    await cycle.save_checkpoint(200)  # not evaluated
    await cycle.evaluate(await cycle.save_checkpoint(300), items(equal))  # judged, old
    await cycle.save_checkpoint(400)
    await Conductor(await advanced(cycle)).collect_once()
    stored = {info.key.split("/")[3] for info in cycle.blobs.list(f"checkpoints/{DOMAIN}/")}
    assert stored == {"000000100", "000000200", "000000400"}


async def test_base_weights_are_deleted_where_the_configuration_says_so(tmp_path: Path) -> None:
    settings = {"keep_last_n_checkpoints": 1, "always_keep_base_generator": False}
    cycle = await registered(tmp_path, self_improvement=settings)
    for step in (100, 200, 300):
        await cycle.make_batch()
        await seen_through(cycle, await cycle.evaluate(await cycle.save_checkpoint(step)))
    assert live_versions(cycle) == [1, 2, 3, 4]
    await Conductor(await advanced(cycle)).collect_once()
    base = read(cycle.blobs, keys.manifest_key(keys.generator_prefix(DOMAIN, 1))).manifest
    assert cycle.blobs.stat(base.file("model/model.safetensors").key) is None
    assert cycle.blobs.stat(base.file("model/config.json").key) is not None
