"""Lineage, recall and withdrawal as text.

Owns: the lines. Does not know: where they are printed, nor how the answers were put together (the controller).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ["lineage_lines", "recall_lines", "withdrawal_lines"]

SHOWN_MAX = 10

Tree = tuple[str, Sequence["Tree"]]


def lineage_lines(lineage: Mapping[str, Any], *, everything: bool = False) -> list[str]:
    """Return the tree behind a version or checkpoint."""
    limit = None if everything else SHOWN_MAX
    name = f"v{lineage['version']}" if lineage["version"] else "no generator version"
    if lineage["checkpoint_id"] is None:
        return [name, "└─ the base model: trained on nothing of this system"]
    step = f"run {lineage['run']}, step {lineage['step']}, {lineage['tokens_seen']} tokens"
    checkpoint = f"checkpoint {lineage['checkpoint_id'][:12]}  {step}"
    shards, documents = lineage["shards"], lineage["documents"]
    synthetic, real = sum(shard["synthetic"] for shard in shards), sum(shard["real"] for shard in shards)
    branches: list[Tree] = [
        (
            f"{len(shards)} shards: {synthetic} synthetic samples, {real} real passages",
            _first([_shard(shard, limit) for shard in shards], limit),
        ),
        (
            "batches by generator version",
            [
                (f"v{part['generator_version']}  {part['batches']} batches, {part['synthetic']} samples", [])
                for part in lineage["versions"]
            ],
        ),
        (
            f"{len(lineage['templates'])} templates",
            [(f"{template or 'none'}  {count} samples", []) for template, count in lineage["templates"].items()],
        ),
        (f"{len(documents)} documents", _first([_document(part) for part in documents], limit)),
    ]
    return list(_drawn((name, [(checkpoint, branches)])))


def recall_lines(recall: Mapping[str, Any], *, everything: bool = False, samples: bool = False) -> list[str]:
    """Return what came from a document; `samples`: by their ids, too."""
    limit = None if everything else SHOWN_MAX
    title = f"{recall['title']}  " if recall["title"] else ""
    state = "forgotten" if recall["forgotten"] else "not forgotten"
    head = f"{recall['document_id'][:12]}  {title}({recall['source']}, {recall['split'].replace('_', ' ')}, {state})"
    branches: list[Tree] = [(line, []) for line in recall["lines"]]
    if recall["batches"]:
        named: list[Tree] = [
            (f"{one['sequence']} by v{one['generator_version']}  asked {one['asked']} times", [])
            for one in recall["batches"]
        ]
        branches.append(("batches", _first(named, limit)))
    if recall["shards"]:
        counts: list[Tree] = [
            (
                f"{one['shard_id'][:12]}  {len(one['synthetic'])} synthetic, {len(one['real'])} real",
                _first(_ids(one), limit) if samples else [],
            )
            for one in recall["shards"]
        ]
        branches.append(("shards", _first(counts, limit)))
    if recall["checkpoints"]:
        branches.append(("checkpoints", [(_checkpoint(one), []) for one in recall["checkpoints"]]))
    return list(_drawn((head, branches)))


def withdrawal_lines(withdrawal: Mapping[str, Any]) -> list[str]:
    """Return what a rollback took back."""
    made = sum(1 for batch in withdrawal["batches"] if batch["shard"])
    samples = sum(shard["accepted"] for shard in withdrawal["shards"])
    what = f"{len(withdrawal['batches'])} batches of version {withdrawal['version']}, {made} of them in shards"
    lines = [f"withdrawn: {what} with {samples} synthetic samples; no later shard or round of training holds them"]
    if withdrawal["checkpoints"]:
        lines.append("already in the weights of:")
        lines += [f"  {_checkpoint(one)}" for one in withdrawal["checkpoints"]]
    else:
        lines.append("in no stored weights")
    clean = withdrawal["clean"]
    where = f"{clean['run']} step {clean['step']} ({clean['checkpoint_id'][:12]})" if clean else "the starting model"
    if withdrawal["rewind"]:
        lines.append(
            f"the trainer goes back to {where} and trains on as {withdrawal['run']}-rewound-"
            f"{withdrawal['ledger_sequence']}"
        )
    else:
        lines.append(f"the last clean checkpoint: {where}; `--rewind` sends the trainer back to it")
    return lines


def _checkpoint(one: Mapping[str, Any]) -> str:
    version = f", v{one['version']}" if one["version"] else ""
    return f"{one['run']} step {one['step']} ({one['checkpoint_id'][:12]}{version}): {one['shards']} shards"


def _shard(shard: Mapping[str, Any], limit: int | None) -> Tree:
    withdrawn = ", withdrawn" if shard["withdrawn"] else ""
    text = f"batch {shard['batch_sequence']} by v{shard['generator_version']}"
    line = f"{shard['shard_id'][:12]}  {text}, {shard['synthetic']} synthetic, {shard['real']} real{withdrawn}"
    return line, _first([_sample(sample) for sample in shard["samples"] or ()], limit)


def _sample(sample: Mapping[str, Any]) -> Tree:
    template = f" by {sample['template']}" if sample["template"] else ""
    return f"{sample['sample_id']}  {sample['origin']}, of document {sample['document_id'][:12]}{template}", []


def _ids(shard: Mapping[str, Any]) -> list[Tree]:
    return [(f"{sample_id}  {origin}", []) for origin in ("synthetic", "real") for sample_id in shard[origin]]


def _document(part: Mapping[str, Any]) -> Tree:
    forgotten = ", forgotten" if part["forgotten"] else ""
    name = part["title"] or part["source"] or "unknown"
    text = f"{part['document_id'][:12]}  {name}  {part['synthetic']} synthetic, {part['real']} real{forgotten}"
    return text, []


def _first(branches: Sequence[Tree], limit: int | None) -> list[Tree]:
    if limit is None or len(branches) <= limit:
        return list(branches)
    return [*branches[:limit], (f"… {len(branches) - limit} more (--all, --json)", [])]


def _drawn(tree: Tree) -> Iterator[str]:
    text, branches = tree
    yield text
    for place, branch in enumerate(branches, start=1):
        last = place == len(branches)
        for number, line in enumerate(_drawn(branch)):
            lead = ("└─ " if last else "├─ ") if number == 0 else ("   " if last else "│  ")
            yield f"{lead}{line}"
