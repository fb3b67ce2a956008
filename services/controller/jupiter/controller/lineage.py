"""Where a version comes from: checkpoint, shards, batches, samples, documents and templates.

Owns: putting the chain together from the ledger, the projection and the manifests, and finding what a name means.
Does not know: how a chain is printed (the command line), nor the other direction, from a document on (`recall`).
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from jupiter.controller.consumption import Consumed, consumption
from jupiter.controller.contents import Content, SampleLine, contents, without
from jupiter.controller.deps import Deps
from jupiter.controller.projection import Projection
from jupiter.controller.recall import Recall, recall_of
from jupiter.controller.views import View
from jupiter.controller.withdrawals import batch_sequence
from jupiter.errors import NotFound, Rejected
from jupiter.events import CheckpointSaved
from jupiter.ledger import LedgerEntry, entry_of_version, flips
from jupiter.withdrawals import Withdrawn

__all__ = ["Lineage", "assemble", "lineage"]

_VERSION = re.compile(r"v?(\d{1,9})")
PREFIX_CHARS_MIN = 6


class ShardLine(View):
    """One shard that the checkpoint was trained on."""

    shard_id: str
    sequence: int
    batch_id: str
    batch_sequence: int | None
    generator_version: int
    synthetic: int
    real: int
    """Real passages."""
    withdrawn: bool
    """Its batch was taken back later: it is in these weights all the same."""
    samples: tuple[SampleLine, ...] | None
    """What was learned of it; None: not asked for."""


class VersionPart(View):
    """What one generator version contributed."""

    generator_version: int
    batches: int
    synthetic: int


class DocumentPart(View):
    """What one document contributed."""

    document_id: str
    title: str | None
    source: str
    synthetic: int
    real: int
    forgotten: bool


class Lineage(View):
    """Everything behind one version or checkpoint; what the run left out, such as a forgotten document, is in none."""

    version: int | None
    evaluation_id: str | None
    checkpoint_id: str | None
    """None: the base model, trained on nothing of ours."""
    run: str | None
    step: int | None
    tokens_seen: int | None
    rewound: bool
    """Whether its run was sent back to an earlier checkpoint."""
    shards: tuple[ShardLine, ...]
    versions: tuple[VersionPart, ...]
    templates: Mapping[str, int]
    """Template -> synthetic samples."""
    documents: tuple[DocumentPart, ...]
    """Those with most samples first."""


async def lineage(deps: Deps, name: str, *, samples: bool = False) -> Lineage | Recall:
    """Return what is behind a version (`v3`, `3`) or a checkpoint's id, or what came from a document.

    `samples`: name every sample as well; of a document they are always named.
    """
    state = deps.state
    ledger = await asyncio.to_thread(deps.ledger.refresh)
    number = _VERSION.fullmatch(name)
    if number:
        entry = entry_of_version(ledger, int(number[1]))
        if entry is not None:
            return await _of_version(deps, ledger, entry, samples=samples)
        if name.startswith("v"):
            raise NotFound(f"there is no version {number[1]}; the ledger knows {sorted({e.version for e in ledger})}")
    found = [one for key, one in state.checkpoints.items() if len(name) >= PREFIX_CHARS_MIN and key.startswith(name)]
    if len(found) > 1:
        raise Rejected(f"{len(found)} checkpoints begin with {name!r}: name one by more of its id")
    if found:
        entry = next((one for one in flips(ledger) if one.checkpoint_id == found[0].checkpoint_id), None)
        return await _of_checkpoint(deps, found[0], entry, samples=samples)
    return await recall_of(deps, name)


async def _of_version(deps: Deps, ledger: Sequence[LedgerEntry], entry: LedgerEntry, *, samples: bool) -> Lineage:
    if entry.checkpoint_id is None:
        return assemble(deps.state, None, {}, entry)
    checkpoint = deps.state.checkpoints.get(entry.checkpoint_id)
    if checkpoint is None:
        raise NotFound(f"version {entry.version} was made of checkpoint {entry.checkpoint_id}, which no event tells of")
    first = next(one for one in flips(ledger) if one.version == entry.version)
    return await _of_checkpoint(deps, checkpoint, first, samples=samples)


async def _of_checkpoint(
    deps: Deps, checkpoint: CheckpointSaved, entry: LedgerEntry | None, *, samples: bool
) -> Lineage:
    fed = await asyncio.to_thread(consumption, deps.blobs, [checkpoint])
    if checkpoint.checkpoint_id not in fed:
        raise NotFound(f"checkpoint {checkpoint.checkpoint_id[:12]} is no longer stored, nor is what it was trained on")
    one = fed[checkpoint.checkpoint_id]
    return assemble(deps.state, one, await asyncio.to_thread(_learned, deps, one, samples=samples), entry)


def _learned(deps: Deps, one: Consumed, *, samples: bool) -> dict[str, Content]:
    """Return what the checkpoint learned of each of its shards: not what the run left out when it came to them."""
    state, since = deps.state, _left_out_since(one)
    shards = [state.shards[shard_id] for shard_id in one.shards if shard_id in state.shards]
    learned = {}
    for shard_id, content in contents(deps.blobs, shards, samples=samples).items():
        gone = {document for document, first in since.items() if first <= state.shard_sequences[shard_id]}
        learned[shard_id] = without(deps.blobs, content, gone)
    return learned


def assemble(
    state: Projection, fed: Consumed | None, content: Mapping[str, Content], entry: LedgerEntry | None
) -> Lineage:
    """Return the chain behind a checkpoint (None: the base) from what it learned of its shards. Pure."""
    shards = list(content.values())
    synthetic: Counter[str] = Counter()
    real: Counter[str] = Counter()
    templates: Counter[str] = Counter()
    by_version: dict[int, list[int]] = {}
    for one in shards:
        synthetic.update(one.documents)
        real.update({key: len(passages) for key, passages in one.real_documents.items()})
        templates.update(one.templates)
        by_version.setdefault(one.shard.generator_version, []).append(one.synthetic)
    checkpoint = fed.checkpoint if fed else None
    return Lineage(
        version=entry.version if entry else None,
        evaluation_id=entry.evaluation_id if entry else None,
        checkpoint_id=checkpoint.checkpoint_id if checkpoint else None,
        run=checkpoint.run if checkpoint else None,
        step=checkpoint.step if checkpoint else None,
        tokens_seen=checkpoint.tokens_seen if checkpoint else None,
        rewound=bool(checkpoint and "-rewound-" in checkpoint.run),
        shards=tuple(_shard_line(state, one) for one in shards),
        versions=tuple(
            VersionPart(generator_version=version, batches=len(learned), synthetic=sum(learned))
            for version, learned in sorted(by_version.items())
        ),
        templates=dict(sorted(templates.items())),
        documents=_documents(state, synthetic, real),
    )


def _left_out_since(fed: Consumed) -> dict[str, int]:
    """Return each document that the run left out, with the stream sequence of the first shard without it."""
    since: dict[str, int] = {}
    for omission in fed.omissions:
        for document_id in omission.withdrawn.forgotten:
            since.setdefault(document_id, omission.shard_sequence)
    return since


def _shard_line(state: Projection, one: Content) -> ShardLine:
    shard = one.shard
    sequence = batch_sequence(state, shard)
    withdrawn = Withdrawn()
    for number, event in enumerate(state.quarantines.values(), start=1):
        withdrawn = withdrawn.with_event(event, number)
    return ShardLine(
        shard_id=shard.shard_id,
        sequence=state.shard_sequences[shard.shard_id],
        batch_id=shard.batch_id,
        batch_sequence=sequence,
        generator_version=shard.generator_version,
        synthetic=one.synthetic,
        real=one.real,
        withdrawn=sequence is not None and withdrawn.has_batch(version=shard.generator_version, sequence=sequence),
        samples=one.samples,
    )


def _documents(state: Projection, synthetic: Counter[str], real: Counter[str]) -> tuple[DocumentPart, ...]:
    parts = []
    for document_id in synthetic.keys() | real.keys():
        known = state.documents.get(document_id)
        parts.append(
            DocumentPart(
                document_id=document_id,
                title=known.title if known else None,
                source=known.source if known else "",
                synthetic=synthetic[document_id],
                real=real[document_id],
                forgotten=document_id in state.forgotten,
            )
        )
    return tuple(sorted(parts, key=lambda part: (-part.synthetic - part.real, part.document_id)))
