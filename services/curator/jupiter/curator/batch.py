"""A batch as it lies in the store: its samples, its malformed lines, and what gave no sample at all.

Owns: reading and checking its files. Does not know: what becomes of the samples.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from jupiter import manifests
from jupiter.blobs import Blobs
from jupiter.curator.pipeline import Rejection
from jupiter.errors import IntegrityError, NotFound, Rejected
from jupiter.records import Manifest, Sample
from jupiter.sample_files import read_json_lines

__all__ = ["SAMPLES_FILE", "UNUSABLE_FILE", "Batch", "read_batch"]

SAMPLES_FILE, UNUSABLE_FILE = "samples.jsonl.zst", "unusable.jsonl.zst"
SAMPLES_MAX = 100_000
"""A batch with more lines is no batch of ours: a request asks for at most 256."""
GENERATION = "generation"
"""Under this name, in the place of a filter's, stands what the generator itself could not use."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What a generator committed. Samples, malformed lines and unusable items together are all that was asked for."""

    manifest: Manifest
    samples: tuple[Sample, ...]
    malformed: tuple[Rejection, ...]
    """Lines that are no samples, or repeat one."""
    unusable: tuple[Rejection, ...]
    """Items of the request of which no sample came, each as `unusable_<reason>`."""


def read_batch(blobs: Blobs, *, batch_id: str, manifest_key: str, manifest_sha256: str) -> Batch:
    """Return the batch that an event names. Raises Rejected when it is not whole."""
    try:
        manifest = manifests.read(blobs, manifest_key, sha256=manifest_sha256).manifest
        lines = list(read_json_lines(manifests.download_bytes(blobs, manifest.file(SAMPLES_FILE))))
        unusable = tuple(_unusable(blobs, manifest))
    except (IntegrityError, NotFound, KeyError, TypeError, ValueError) as error:
        raise Rejected(f"batch {batch_id} cannot be read: {error}") from error
    if len(lines) + len(unusable) > SAMPLES_MAX:
        raise Rejected(f"batch {batch_id} has {len(lines) + len(unusable)} samples, the limit is {SAMPLES_MAX}")
    samples: dict[str, Sample] = {}
    malformed: list[Rejection] = []
    for line in lines:
        try:
            sample = Sample.model_validate_json(line)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            where = ".".join(map(str, problem["loc"])) or "line"
            malformed.append(Rejection({"line": line, "problem": f"{where}: {problem['msg']}"}, "schema", "malformed"))
            continue
        if sample.sample_id in samples:
            malformed.append(Rejection(sample, "schema", "repeated_id"))
        else:
            samples[sample.sample_id] = sample
    return Batch(manifest=manifest, samples=tuple(samples.values()), malformed=tuple(malformed), unusable=unusable)


def _unusable(blobs: Blobs, manifest: Manifest) -> Iterator[Rejection]:
    """Yield what gave no sample, in a form that can be shown beside rejected samples."""
    if UNUSABLE_FILE not in {ref.name for ref in manifest.files}:
        return
    for line in read_json_lines(manifests.download_bytes(blobs, manifest.file(UNUSABLE_FILE))):
        entry: Mapping[str, Any] = json.loads(line)
        item = {name: entry["item"][name] for name in ("document_id", "chunk_index", "task", "seed")}
        shown = {name: entry[name] for name in ("prompt", "completion") if name in entry}
        version = manifest.details.get("generator_version")
        sample = {"origin": "synthetic", "generator_version": version, **item, **shown}
        yield Rejection(sample, GENERATION, f"unusable_{entry['reason']}")
