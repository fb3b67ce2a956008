"""A rollback that takes the data back: what it withdraws, who hears of it, where the trainer can go back to.

Owns: `VersionQuarantined` and `RewindRequested`, told once for each ledger entry that records them; which batches,
shards and checkpoints are affected; which checkpoint is the last clean one.
Does not know: how the ledger is written (`flips`), nor how curator and trainer leave things out.

The ledger decides, the streams are told: whoever dies in between finds it out anew in the next round.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence

from jupiter import crashpoints
from jupiter.controller.consumption import Consumed, consumption
from jupiter.controller.deps import Deps
from jupiter.controller.metronome import request_id
from jupiter.controller.projection import Projection
from jupiter.controller.views import View
from jupiter.errors import NotFound
from jupiter.events import CheckpointSaved, GenerationRequested, RewindRequested, ShardCurated, VersionQuarantined
from jupiter.ledger import LedgerEntry, flips
from jupiter.withdrawals import CHANNEL, base_run

__all__ = [
    "BatchOut",
    "CheckpointFed",
    "ShardOut",
    "Withdrawal",
    "affected",
    "announce",
    "can_go_back",
    "fed_on_withdrawn",
    "withdrawal",
]

log = logging.getLogger(__name__)


class BatchOut(View):
    """A batch that was taken back."""

    batch_id: str
    sequence: int
    samples: int
    shard: bool
    """Whether a shard was made of it before."""


class ShardOut(View):
    """A shard that is left out from now on."""

    shard_id: str
    sequence: int
    """Its place in the stream of shards."""
    batch_sequence: int
    accepted: int
    tokens: int


class CheckpointFed(View):
    """A stored checkpoint, and how much of what was taken back is in its weights."""

    checkpoint_id: str
    run: str
    step: int
    version: int | None
    """The generator version made from it, if any."""
    shards: int


class Withdrawal(View):
    """What one rollback took back."""

    ledger_sequence: int
    version: int
    request_sequence_max: int
    """Batches of the version for requests up to this one are out."""
    announced: bool
    """Whether curator and trainer were told; that follows the ledger entry within a second."""
    batches: tuple[BatchOut, ...]
    shards: tuple[ShardOut, ...]
    checkpoints: tuple[CheckpointFed, ...]
    """Stored checkpoints that had been trained on some of these shards, oldest first."""
    clean: CheckpointFed | None
    """The last stored checkpoint of the run that holds nothing withdrawn. None: only the starting model does."""
    rewind: bool
    """Whether the trainer was sent back to it."""
    run: str
    """The run that goes, or would go, back."""


def affected(
    state: Projection, ledger: Sequence[LedgerEntry], entry: LedgerEntry, fed: Iterable[Consumed]
) -> Withdrawal:
    """Return what a rollback with quarantine took back. `fed`: the stored checkpoints, in stream order. Pure.

    What was announced stands; before that, it is what the streams hold now.
    """
    event = state.quarantines.get(entry.sequence) or quarantine_of(state, ledger, entry)
    out = _shards_of(state, event)
    bad = {shard.shard_id for taken in (*state.quarantines.values(), event) for shard in _shards_of(state, taken)}
    versions = {found.checkpoint_id: found.version for found in flips(ledger) if found.checkpoint_id}
    known = list(fed)
    run = run_of(known) or ""
    rewound = state.rewinds.get(entry.sequence)
    # What the trainer was told stands, though newer checkpoints may be clean by now.
    told = [one for one in known if rewound is not None and one.checkpoint.checkpoint_id == rewound.checkpoint_id]
    clean = told[-1:] if rewound is not None else _clean_of_run(known, bad)

    def described(one: Consumed) -> CheckpointFed:
        return CheckpointFed(
            checkpoint_id=one.checkpoint.checkpoint_id,
            run=one.checkpoint.run,
            step=one.checkpoint.step,
            version=versions.get(one.checkpoint.checkpoint_id),
            shards=len(one.shards_among(shard.shard_id for shard in out)),
        )

    return Withdrawal(
        ledger_sequence=entry.sequence,
        version=event.version,
        request_sequence_max=event.request_sequence_max,
        announced=entry.sequence in state.quarantines,
        batches=tuple(
            BatchOut(
                batch_id=batch.batch_id,
                sequence=batch.sequence,
                samples=batch.samples,
                shard=batch.batch_id in state.shards,
            )
            for batch in state.batches.values()
            if batch.generator_version == event.version and batch.sequence <= event.request_sequence_max
        ),
        shards=tuple(
            ShardOut(
                shard_id=shard.shard_id,
                sequence=state.shard_sequences[shard.shard_id],
                batch_sequence=batch_sequence(state, shard) or 0,
                accepted=shard.accepted,
                tokens=shard.tokens,
            )
            for shard in out
        ),
        checkpoints=tuple(line for line in map(described, known) if line.shards),
        clean=described(clean[0]) if clean else None,
        rewind=entry.rewind,
        run=run,
    )


def _clean_of_run(known: Sequence[Consumed], bad: set[str]) -> list[Consumed]:
    """Return the last stored checkpoint of the run in training that was trained on none of the shards, if any."""
    run = run_of(known)
    return [one for one in known if base_run(one.checkpoint.run) == run and not one.shards_among(bad)][-1:]


def quarantine_of(state: Projection, ledger: Sequence[LedgerEntry], entry: LedgerEntry) -> VersionQuarantined:
    """Return the event of a rollback with quarantine: all that the version was asked for until then is out.

    Requests made under a later flip to the same version are of a version that somebody promoted again, knowingly.
    """
    assert entry.previous_version is not None, entry  # noqa: S101 — a rollback leaves a version behind
    later = [one for one in flips(ledger) if one.sequence > entry.sequence and one.version == entry.previous_version]
    sequences = [
        issued.sequence
        for issued in state.requests.values()
        if issued.generator_version == entry.previous_version
        and all(issued.request_id != request_id(one, issued.sequence) for one in later)
    ]
    return VersionQuarantined(
        domain=state.domain,
        ledger_sequence=entry.sequence,
        version=entry.previous_version,
        request_sequence_max=max(sequences, default=0),
        reason=entry.reason,
    )


def batch_sequence(state: Projection, shard: ShardCurated) -> int | None:
    """Return the request sequence of the batch that a shard was made of; None while its request is not known here."""
    if shard.batch_sequence is not None:
        return shard.batch_sequence
    issued = state.requests.get(shard.batch_id)
    return issued.sequence if issued else None


def run_of(fed: Sequence[Consumed]) -> str | None:
    """Return the run that is being trained, by its newest checkpoint, under the name that it was begun with."""
    return base_run(fed[-1].checkpoint.run) if fed else None


def _shards_of(state: Projection, event: VersionQuarantined) -> list[ShardCurated]:
    return [
        shard
        for shard in state.shards.values()
        if shard.generator_version == event.version
        and (sequence := batch_sequence(state, shard)) is not None
        and sequence <= event.request_sequence_max
    ]


async def withdrawal(deps: Deps, ledger_sequence: int) -> Withdrawal:
    """Return what the rollback recorded in a ledger entry took back. Raises NotFound when it took nothing back."""
    ledger = await asyncio.to_thread(deps.ledger.refresh)
    entry = next((one for one in ledger if one.sequence == ledger_sequence and one.quarantined), None)
    if entry is None:
        known = [one.sequence for one in ledger if one.quarantined]
        raise NotFound(f"ledger entry {ledger_sequence} is no rollback with quarantine; those are {known}")
    found = affected(deps.state, ledger, entry, await _fed(deps))
    return found if found.run else found.model_copy(update={"run": deps.config.trainer.run})


async def can_go_back(deps: Deps, version: int) -> bool:
    """Whether the run has a stored checkpoint without any shard of the version, nor of what was taken back before."""
    state, known = deps.state, await _fed(deps)
    bad = {shard.shard_id for shard in state.shards.values() if shard.generator_version == version}
    bad |= {shard.shard_id for taken in state.quarantines.values() for shard in _shards_of(state, taken)}
    return bool(_clean_of_run(known, bad))


async def fed_on_withdrawn(deps: Deps, checkpoint: CheckpointSaved) -> str | None:
    """Return why a checkpoint may not be promoted: it holds what a rollback took back. None: it does not.

    After a rollback by hand with quarantine alone the run goes on from weights that hold it, because somebody chose so,
    and its checkpoints are judged as any other. After one that the controller did by itself, on evidence, nobody chose:
    they are refused even where the run had no checkpoint to go back to.
    """
    entries = [entry for entry in deps.ledger.entries if entry.quarantined and (entry.rewind or entry.evidence_sha256)]
    fed = await asyncio.to_thread(consumption, deps.blobs, [checkpoint] if entries else [])
    if checkpoint.checkpoint_id not in fed:
        return None
    for entry in entries:
        event = deps.state.quarantines.get(entry.sequence) or quarantine_of(deps.state, deps.ledger.entries, entry)
        out = _shards_of(deps.state, event)
        eaten = fed[checkpoint.checkpoint_id].shards_among(shard.shard_id for shard in out)
        if eaten:
            instead = (
                "wait for a checkpoint of the run that was sent back"
                if entry.rewind
                else "the run was not sent back, so begin another (a new name in trainer.run)"
            )
            return (
                f"step {checkpoint.step} of {checkpoint.run} was trained on {len(eaten)} shards of version "
                f"{event.version}, which ledger entry {entry.sequence} took back; {instead}, or promote by force"
            )
    return None


async def announce(deps: Deps) -> None:
    """Tell curator and trainer of every withdrawal in the ledger that the streams do not know of."""
    for entry in deps.ledger.entries:
        if entry.quarantined and entry.sequence not in deps.state.quarantines:
            await _announce_quarantine(deps, entry)
        if entry.rewind and entry.sequence not in deps.state.rewinds:
            await _announce_rewind(deps, entry)


async def _announce_quarantine(deps: Deps, entry: LedgerEntry) -> None:
    await deps.following.catch_up(GenerationRequested.channel)
    event = quarantine_of(deps.state, deps.ledger.entries, entry)
    await deps.bus.publish(event)
    crashpoints.reached("event")
    # Another controller may have been first: what the stream holds counts.
    await deps.following.catch_up(CHANNEL)
    log.warning("batches of version %d up to request %d are out", event.version, event.request_sequence_max)


async def _announce_rewind(deps: Deps, entry: LedgerEntry) -> None:
    await deps.following.catch_up(ShardCurated.channel, CheckpointSaved.channel)
    found = affected(deps.state, deps.ledger.entries, entry, await _fed(deps))
    checkpoint = deps.state.checkpoints[found.clean.checkpoint_id] if found.clean else None
    await deps.bus.publish(
        RewindRequested(
            domain=deps.state.domain,
            ledger_sequence=entry.sequence,
            run=found.run or base_run(deps.config.trainer.run),
            checkpoint_id=checkpoint.checkpoint_id if checkpoint else None,
            checkpoint_manifest_key=checkpoint.manifest_key if checkpoint else None,
            checkpoint_manifest_sha256=checkpoint.manifest_sha256 if checkpoint else None,
            reason=entry.reason,
        )
    )
    crashpoints.reached("event")
    await deps.following.catch_up(CHANNEL)


async def _fed(deps: Deps) -> list[Consumed]:
    found = await asyncio.to_thread(consumption, deps.blobs, tuple(deps.state.checkpoints.values()))
    return list(found.values())
