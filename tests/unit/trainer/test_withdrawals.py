"""What the trainer leaves out, and how it goes back: bit for bit, whenever it is killed."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from jupiter import keys, withdrawals
from jupiter.blobs.memory import MemoryBlobs
from jupiter.bus.memory import MemoryBus
from jupiter.config import ClusterConfig
from jupiter.events import CheckpointSaved, DocumentForgotten, RewindRequested, VersionQuarantined
from jupiter.records import Sample, digest_of
from jupiter.service import Runtime
from jupiter.trainer.omissions import OmissionLog
from jupiter.trainer.shards import ShardReader
from jupiter.withdrawals import Withdrawn
from tests.unit.trainer.material import DOMAIN, commit_shard, config_for, samples_of_shard
from tests.unit.trainer.test_training import checkpoints_at, committed_at, says, trainer, until

FORGOTTEN = digest_of("document", 101)
"""The document of the second sample of shard 1."""


async def publish(
    bus: MemoryBus, blobs: MemoryBlobs, number: int, *, version: int = 1, samples: Sequence[Sample] | None = None
) -> None:
    """Publish shard `number`, made of the batch of request `number` by `version`."""
    await bus.publish(commit_shard(blobs, DOMAIN, number, version=version, samples=samples))


async def forget(bus: MemoryBus, document_id: str = FORGOTTEN) -> None:
    await bus.publish(DocumentForgotten(domain=DOMAIN, document_id=document_id, actor="test", reason="asked"))


async def quarantine(bus: MemoryBus, *, version: int, until_request: int, ledger_sequence: int = 3) -> None:
    await bus.publish(
        VersionQuarantined(
            domain=DOMAIN,
            ledger_sequence=ledger_sequence,
            version=version,
            request_sequence_max=until_request,
            reason="it was worse",
        )
    )


async def send_back(bus: MemoryBus, checkpoint: CheckpointSaved | None, *, ledger_sequence: int = 3) -> str:
    """Ask for a rewind, and return the run that goes on from there."""
    await bus.publish(
        RewindRequested(
            domain=DOMAIN,
            ledger_sequence=ledger_sequence,
            run="run1",
            checkpoint_id=checkpoint.checkpoint_id if checkpoint else None,
            checkpoint_manifest_key=checkpoint.manifest_key if checkpoint else None,
            checkpoint_manifest_sha256=checkpoint.manifest_sha256 if checkpoint else None,
            reason="it was worse",
        )
    )
    return withdrawals.rewound_run("run1", ledger_sequence)


def tensors(blobs: MemoryBlobs, step: int, run: str) -> list[str]:
    files = committed_at(blobs, step, run).manifest.files
    return [ref.sha256 for ref in files if ref.name.endswith(".safetensors")]


def details(blobs: MemoryBlobs, step: int, run: str = "run1") -> Any:
    return committed_at(blobs, step, run).manifest.details


def told(blobs: MemoryBlobs, step: int, run: str) -> dict[str, Any]:
    """Return a checkpoint's details but for the run's name."""
    return {key: value for key, value in details(blobs, step, run).items() if key not in ("run", "config")}


def shard_ids(*numbers: int) -> list[str]:
    return [digest_of("shard", number) for number in numbers]


async def train_until(config: ClusterConfig, bus: MemoryBus, blobs: MemoryBlobs, shard_sequence: int) -> None:
    async with trainer(config, bus, blobs) as runtime:
        await says(runtime, "waiting", f"shard after {shard_sequence}")


async def test_a_forgotten_document_is_left_out_of_every_later_pass(
    bus: MemoryBus, blobs: MemoryBlobs, tmp_path: Path
) -> None:
    """Shard 1 makes three passes; the document is forgotten after the first."""
    config = config_for(tmp_path / "data", eval_every_steps=2, passes_per_shard=3, pass_spacing_shards=1)
    await publish(bus, blobs, 1)
    async with trainer(config, bus, blobs) as runtime:
        await says(runtime, "waiting", "shard after 1")
        await forget(bus)
        await publish(bus, blobs, 2)
        await publish(bus, blobs, 3)
        await says(runtime, "waiting", "shard after 3")
    saved = sorted((one.step for one in await checkpoints_at(bus, set())), reverse=True)
    newest = details(blobs, saved[0])
    assert newest["omissions"] == [
        {"shard_sequence": 2, "withdrawn": {"sequence": 1, "quarantined": [], "forgotten": [FORGOTTEN]}}
    ]
    assert "forgotten" not in newest["samples"], "the shards that came later never held it"


async def test_the_tokens_of_a_round_are_those_without_what_is_withdrawn(blobs: MemoryBlobs, tmp_path: Path) -> None:
    reader, shard = reader_and_shard(blobs, tmp_path, control="none")
    whole = await reader.load(shard, without=Withdrawn())
    less = await reader.load(shard, without=Withdrawn(forgotten=(FORGOTTEN,)))
    gone = [one for one in whole.samples if one not in less.samples]
    assert {one.sample_id for one in gone} == {digest_of("sample", 101)}
    assert less.samples == tuple(one for one in whole.samples if one not in gone)
    assert less.counts["forgotten"] == 1


async def test_the_control_moves_no_forgotten_answer_under_another_question(blobs: MemoryBlobs, tmp_path: Path) -> None:
    reader, shard = reader_and_shard(blobs, tmp_path, control="shuffled")
    less = await reader.load(shard, without=Withdrawn(forgotten=(FORGOTTEN,)))
    text = "".join(reader_text(tmp_path, one.tokens) for one in less.samples)
    assert "function_102" in text
    assert "function_101" not in text


def reader_and_shard(blobs: MemoryBlobs, tmp_path: Path, *, control: str) -> tuple[ShardReader, Any]:
    from jupiter.modeling import load_tokenizer
    from jupiter.trainer.formats import Encoder
    from jupiter.trainer.rounds import ConsumedShard

    settings = config_for(tmp_path / "data", control=control).trainer
    encoder = Encoder(load_tokenizer(tmp_path / "base"), sample_format="question", sequence_length=128)
    event = commit_shard(blobs, DOMAIN, 1)
    shard = ConsumedShard(
        sequence=1, shard_id=event.shard_id, manifest_key=event.manifest_key, manifest_sha256=event.manifest_sha256
    )
    return ShardReader(bus=MemoryBus(), blobs=blobs, domain=DOMAIN, encoder=encoder, settings=settings), shard


def reader_text(tmp_path: Path, tokens: Sequence[int]) -> str:
    from jupiter.modeling import load_tokenizer

    return str(load_tokenizer(tmp_path / "base").decode(tokens))


async def test_a_quarantined_shard_is_passed_over_and_the_offset_goes_on(
    bus: MemoryBus, blobs: MemoryBlobs, tmp_path: Path
) -> None:
    """The metronome waits for the offset: what is left out must not hold it up. Other versions stay untouched."""
    await quarantine(bus, version=2, until_request=3)
    for number, version in ((1, 1), (2, 2), (3, 2), (4, 2), (5, 1)):
        await publish(bus, blobs, number, version=version)
    async with trainer(config_for(tmp_path / "data", eval_every_steps=2), bus, blobs) as runtime:
        found = await says(runtime, "waiting", "shard after 5")
    assert found.figures["shard_sequence"] == 5
    newest = max(one.step for one in await checkpoints_at(bus, set()))
    content = details(blobs, newest)
    assert content["shards"] == shard_ids(1, 4, 5)[: len(content["shards"])]
    assert set(shard_ids(1, 4)) <= set(content["shards"]), "request 4 came after the quarantine"
    assert content["samples"]["shard_withdrawn"] == 2


@asynccontextmanager
async def killed_at_the_end(config: ClusterConfig, bus: MemoryBus, blobs: MemoryBlobs) -> AsyncIterator[Runtime]:
    """Run a trainer of which nothing is left afterwards but what it had stored: no snapshot, as after kill -9."""
    async with trainer(config, bus, blobs) as runtime:
        yield runtime
    for snapshot in config.data_dir.glob("trainer/*/snapshot"):
        shutil.rmtree(snapshot)


@pytest.mark.parametrize("kill_after", [2, 3, 4])
async def test_a_run_killed_around_a_withdrawal_ends_in_the_weights_of_one_never_killed(
    bus: MemoryBus, blobs: MemoryBlobs, tmp_path: Path, kill_after: int
) -> None:
    """The killed run repeats rounds since its last checkpoint; what was withdrawn meanwhile must not change them."""

    def config(run: str) -> ClusterConfig:
        return config_for(tmp_path / run, run=run, eval_every_steps=4, passes_per_shard=2, pass_spacing_shards=1)

    async def feed(numbers: range, *runtimes: Runtime) -> None:
        for number in numbers:
            if number == 3:
                await forget(bus)
                await quarantine(bus, version=7, until_request=4)
            await publish(bus, blobs, number, version=7 if number == 4 else 1)
            for runtime in runtimes:
                await says(runtime, "waiting", f"shard after {number}")

    async with trainer(config("whole"), bus, blobs) as whole:
        async with killed_at_the_end(config("killed"), bus, blobs) as killed:
            await feed(range(1, kill_after + 1), whole, killed)
        await forget(bus, samples_of_shard(kill_after)[0].document_id)
        async with trainer(config("killed"), bus, blobs) as killed:
            await says(killed, "waiting", f"shard after {kill_after}")
            await feed(range(kill_after + 1, 6), whole, killed)
    steps = stored_steps(blobs, "whole")
    assert steps == stored_steps(blobs, "killed")
    assert len(steps) >= 3
    for step in steps:
        assert tensors(blobs, step, "killed") == tensors(blobs, step, "whole"), step
        assert told(blobs, step, "killed") == told(blobs, step, "whole"), step
    newest = details(blobs, steps[-1], "killed")
    assert newest["omissions"] == details(blobs, steps[-1], "whole")["omissions"]
    assert [one["shard_sequence"] for one in newest["omissions"]] == sorted({3, kill_after + 1})


async def reference(
    tmp_path: Path, blobs: MemoryBlobs, shards: Sequence[tuple[int, int]], *, quarantined_from: int
) -> str:
    """Train a run that was told of the quarantine before the shard number came, and return its name."""
    bus, name = MemoryBus(), "reference"
    async with trainer(config_for(tmp_path / name, run=name), bus, blobs) as runtime:
        for place, (number, version) in enumerate(shards, start=1):
            if number == quarantined_from:
                await quarantine(bus, version=2, until_request=99)
            await publish(bus, blobs, number, version=version)
            await says(runtime, "waiting", f"shard after {place}")
    return name


SHARDS = ((1, 1), (2, 1), (3, 2), (4, 2), (5, 1))
"""Number and generator version."""


def clean_checkpoint(blobs: MemoryBlobs, saved: Sequence[CheckpointSaved]) -> CheckpointSaved:
    """Return the last one that holds nothing of version 2."""
    bad = set(shard_ids(3, 4))
    clean = [one for one in saved if not bad & set(details(blobs, one.step)["shards"])]
    assert 0 < len(clean) < len(saved)
    return clean[-1]


@pytest.mark.parametrize("while_it_runs", [True, False])
async def test_sent_back_it_trains_on_as_if_the_version_had_never_been(
    bus: MemoryBus, blobs: MemoryBlobs, tmp_path: Path, *, while_it_runs: bool
) -> None:
    config = config_for(tmp_path / "data")
    async with killed_at_the_end(config, bus, blobs) as runtime:
        for number, version in SHARDS[:4]:
            await publish(bus, blobs, number, version=version)
        await says(runtime, "waiting", "shard after 4")
        origin = clean_checkpoint(blobs, await checkpoints_at(bus, set()))
        if while_it_runs:
            run = await ask_to_go_back(bus, origin)
            await says(runtime, "waiting", "shard after 4")
    if not while_it_runs:
        run = await ask_to_go_back(bus, origin)
    await publish(bus, blobs, 5)
    for _ in range(2):  # a second start finds that the request was carried out
        await train_until(config, bus, blobs, 5)
    steps = stored_steps(blobs, run)
    assert steps[0] > origin.step
    expected = await reference(tmp_path, blobs, SHARDS, quarantined_from=3)
    assert steps == [step for step in stored_steps(blobs, expected) if step > origin.step]
    for step in steps:
        assert tensors(blobs, step, run) == tensors(blobs, step, expected)
    content = details(blobs, steps[-1], run)
    assert content["rewound_from"] == origin.checkpoint_id
    assert not set(shard_ids(3, 4)) & set(content["shards"])
    events = [one for one in await checkpoints_at(bus, set()) if one.run == run]
    assert [one.step for one in events] == steps, "each is published once"


async def ask_to_go_back(bus: MemoryBus, checkpoint: CheckpointSaved | None) -> str:
    await quarantine(bus, version=2, until_request=4)
    return await send_back(bus, checkpoint)


@pytest.mark.parametrize("seconds", [0.03, 0.3])
async def test_killed_while_it_goes_back_it_goes_back_again(
    bus: MemoryBus, blobs: MemoryBlobs, tmp_path: Path, seconds: float
) -> None:
    """Cut off somewhere on the way, and its snapshots are gone: what is left is what kill -9 leaves."""
    config = config_for(tmp_path / "data")
    async with killed_at_the_end(config, bus, blobs) as runtime:
        for number, version in SHARDS[:4]:
            await publish(bus, blobs, number, version=version)
        await says(runtime, "waiting", "shard after 4")
    origin = clean_checkpoint(blobs, await checkpoints_at(bus, set()))
    await publish(bus, blobs, 5)
    run = await ask_to_go_back(bus, origin)
    async with killed_at_the_end(config, bus, blobs):
        await asyncio.sleep(seconds)
    await train_until(config, bus, blobs, 5)
    expected = await reference(tmp_path, blobs, SHARDS, quarantined_from=3)
    newest = stored_steps(blobs, run)[-1]
    assert newest == stored_steps(blobs, expected)[-1]
    assert tensors(blobs, newest, run) == tensors(blobs, newest, expected)


async def test_without_a_clean_checkpoint_it_begins_anew(bus: MemoryBus, blobs: MemoryBlobs, tmp_path: Path) -> None:
    config = config_for(tmp_path / "data")
    async with trainer(config, bus, blobs) as runtime:
        for number, version in ((1, 2), (2, 2)):
            await publish(bus, blobs, number, version=version)
        await says(runtime, "waiting", "shard after 2")
        run = await ask_to_go_back(bus, None)
        for number in (5, 6):
            await publish(bus, blobs, number)
        await says(runtime, "waiting", "shard after 4")
    expected = await reference(tmp_path, blobs, ((1, 2), (2, 2), (5, 1), (6, 1)), quarantined_from=1)
    steps = stored_steps(blobs, run)
    assert steps == stored_steps(blobs, expected)
    assert tensors(blobs, steps[-1], run) == tensors(blobs, steps[-1], expected)


async def test_a_checkpoint_that_is_gone_leaves_the_run_where_it_is(
    bus: MemoryBus, blobs: MemoryBlobs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = config_for(tmp_path / "data")
    async with trainer(config, bus, blobs) as runtime:
        for number in (1, 2):
            await publish(bus, blobs, number)
        before = await says(runtime, "waiting", "shard after 2")
        first = (await checkpoints_at(bus, set()))[0]
        blobs.delete(first.manifest_key)
        run = await send_back(bus, first)
        await until(lambda: logged(caplog, "cannot go back as ledger entry 3 asks"))
        await publish(bus, blobs, 3)
        after = await says(runtime, "waiting", "shard after 3")
    assert after.figures["step"] > before.figures["step"]
    assert stored_steps(blobs, run) == []


async def logged(caplog: pytest.LogCaptureFixture, text: str) -> bool:
    return text in caplog.text


async def test_a_request_to_another_run_is_none_of_its_business(
    bus: MemoryBus, blobs: MemoryBlobs, tmp_path: Path
) -> None:
    await publish(bus, blobs, 1)
    await send_back(bus, None)
    await train_until(config_for(tmp_path / "data", run="other"), bus, blobs, 1)
    assert not list(blobs.list(f"checkpoints/{DOMAIN}/other-rewound-3/"))
    assert {one.run for one in await checkpoints_at(bus, set())} <= {"other"}


async def test_two_trainers_of_one_run_leave_out_the_same(bus: MemoryBus, blobs: MemoryBlobs) -> None:
    """The first that records an omission decides from which round on it is in force."""
    first, second = (OmissionLog(bus=bus, blobs=blobs, domain=DOMAIN, run="run1") for _ in range(2))
    await first.open()
    await second.open()
    await forget(bus)
    made = await first.at(5, known=Withdrawn())
    await forget(bus, digest_of("document", 7))
    assert made is not None
    assert made.withdrawn.forgotten == (FORGOTTEN,)
    assert await second.at(5, known=Withdrawn()) == made
    later = OmissionLog(bus=bus, blobs=blobs, domain=DOMAIN, run="run1")
    await later.open()
    assert await later.at(4, known=Withdrawn()) is None, "that round began before"
    assert await later.at(5, known=Withdrawn()) == made
    more = await later.at(6, known=made.withdrawn)
    assert more is not None
    assert more.withdrawn.forgotten == (digest_of("document", 7),)
    assert await later.at(7, known=made.withdrawn.plus(more.withdrawn)) is None


@pytest.mark.parametrize(
    "damaged",
    [b"", b"\x00\xff", b'{"shard_sequence":5}', b'{"shard_sequence":7,"withdrawn":{}}'],
    ids=["empty", "no text", "cut short", "of another round"],
)
async def test_a_damaged_omission_leaves_out_all_that_is_withdrawn_by_now(
    bus: MemoryBus, blobs: MemoryBlobs, caplog: pytest.LogCaptureFixture, damaged: bytes
) -> None:
    first = OmissionLog(bus=bus, blobs=blobs, domain=DOMAIN, run="run1")
    await first.open()
    await forget(bus)
    await first.at(5, known=Withdrawn())
    key = keys.omissions_prefix(DOMAIN, "run1") + keys.omission_name(5)
    blobs.put(key, damaged)
    await forget(bus, digest_of("document", 7))
    later = OmissionLog(bus=bus, blobs=blobs, domain=DOMAIN, run="run1")
    await later.open()
    assert f"omission {key} is damaged" in caplog.text
    assert "restore the object" in caplog.text
    assert await later.at(4, known=Withdrawn()) is None, "that round began before"
    made = await later.at(5, known=Withdrawn())
    assert made is not None
    assert set(made.withdrawn.forgotten) == {FORGOTTEN, digest_of("document", 7)}
    assert await later.at(6, known=made.withdrawn) is None
    assert blobs.get(key) == damaged


async def test_a_run_killed_after_an_omission_that_is_damaged_then_goes_on_without_what_was_withdrawn(
    bus: MemoryBus, blobs: MemoryBlobs, tmp_path: Path
) -> None:
    """Nothing more was withdrawn meanwhile, so it even ends in the weights of a run that was never killed."""

    def config(run: str) -> ClusterConfig:
        return config_for(tmp_path / run, run=run, eval_every_steps=4, passes_per_shard=2, pass_spacing_shards=1)

    async with trainer(config("whole"), bus, blobs) as whole:
        async with killed_at_the_end(config("killed"), bus, blobs) as killed:
            for number in (1, 2):
                if number == 2:
                    await forget(bus)
                await publish(bus, blobs, number)
                for runtime in (whole, killed):
                    await says(runtime, "waiting", f"shard after {number}")
        recorded = keys.omissions_prefix(DOMAIN, "killed") + keys.omission_name(2)
        assert blobs.stat(recorded)
        blobs.put(recorded, b"{")
        async with trainer(config("killed"), bus, blobs) as killed:
            await says(killed, "waiting", "shard after 2")
            await publish(bus, blobs, 3)
            for runtime in (whole, killed):
                await says(runtime, "waiting", "shard after 3")
    steps = stored_steps(blobs, "killed")
    assert steps == stored_steps(blobs, "whole")
    assert tensors(blobs, steps[-1], "killed") == tensors(blobs, steps[-1], "whole")
    assert [one["shard_sequence"] for one in details(blobs, steps[-1], "killed")["omissions"]] == [2]


def stored_steps(blobs: MemoryBlobs, run: str) -> list[int]:
    prefix = f"checkpoints/{DOMAIN}/{run}/"
    found = [info.key.removeprefix(prefix) for info in blobs.list(prefix)]
    return sorted(int(key.split("/")[0]) for key in found if key.endswith("/manifest.json"))
