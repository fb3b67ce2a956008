"""From a request to samples: pure but for the reading of documents and the storing of files.

Owns: the grounded prompts of a request, the samples made of their completions, the batch's files and its figures.
Does not know: engines, versions on disk, events.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jupiter import keys, manifests
from jupiter.blobs import Blobs
from jupiter.chunks import chunk
from jupiter.config.sections import GeneratorSection
from jupiter.errors import NotFound
from jupiter.events import GenerationItem, GenerationRequested
from jupiter.generator.engines import Completion, Prompt
from jupiter.generator.tasks import Request, Task, Unusable, find_task
from jupiter.records import BlobRef, Document, Sample, sample_id_of
from jupiter.sample_files import write_json_lines

__all__ = [
    "SAMPLES_FILE",
    "UNUSABLE_FILE",
    "Job",
    "Made",
    "details_of",
    "make_samples",
    "plan",
    "read_documents",
    "upload",
]

SAMPLES_FILE = "samples.jsonl.zst"
UNUSABLE_FILE = "unusable.jsonl.zst"
"""The items that gave no sample: each with its reason, and prompt and completion as far as they exist."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One item that can be generated."""

    index: int
    item: GenerationItem
    task: Task
    request: Request
    prompt: Prompt
    own_prompt: str | None
    """The prompt's own part, without the worked examples."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """What a request came to."""

    samples: tuple[Sample, ...]
    unusable: tuple[Mapping[str, Any], ...]
    tokens: int

    def unusable_by_reason(self) -> dict[str, int]:
        return dict(sorted(Counter(entry["reason"] for entry in self.unusable).items()))


def read_documents(blobs: Blobs, request: GenerationRequested) -> dict[str, Document]:
    """Return the request's documents by id; one that was withdrawn meanwhile is left out."""
    documents = {}
    for document_id in {item.document_id for item in request.items}:
        try:
            data = blobs.get(keys.document_key(request.domain, document_id))
        except NotFound:
            continue
        documents[document_id] = Document.model_validate_json(data)
    return documents


def plan(
    request: GenerationRequested, documents: Mapping[str, Document], *, chunk_chars_max: int
) -> tuple[list[Job], list[dict[str, Any]]]:
    """Return the jobs of a request, and the items that none can be made of. Raises Rejected for an unknown task."""
    jobs: list[Job] = []
    unusable: list[dict[str, Any]] = []
    for index, item in enumerate(request.items):
        task = find_task(item.task)
        found = _ground(item, documents.get(item.document_id), chunk_chars_max)
        rendered = found if isinstance(found, Unusable) else task.render(found)
        if isinstance(found, Unusable) or isinstance(rendered, Unusable):
            reason = found.reason if isinstance(found, Unusable) else rendered.reason  # type: ignore[union-attr]
            unusable.append(_unusable(index, item, reason))
            continue
        prompt = Prompt(
            text=rendered.text, seed=item.seed, stop=rendered.stop, chat=rendered.chat, template=task.template
        )
        jobs.append(Job(index=index, item=item, task=task, request=found, prompt=prompt, own_prompt=rendered.own))
    return jobs, unusable


def make_samples(
    request: GenerationRequested,
    jobs: Sequence[Job],
    completions: Sequence[Completion],
    unusable: Sequence[Mapping[str, Any]],
) -> Made:
    """Parse every completion into a sample or a reason."""
    samples = []
    refused = list(unusable)
    for job, completion in zip(jobs, completions, strict=True):
        parsed = job.task.parse(completion.text, job.request)
        if isinstance(parsed, Unusable):
            entry = _unusable(job.index, job.item, parsed.reason)
            refused.append(entry | {"prompt": completion.prompt, "completion": completion.text})
            continue
        samples.append(
            Sample(
                sample_id=sample_id_of(request.request_id, job.index),
                origin="synthetic",
                instruction=parsed.instruction,
                response=parsed.response,
                test=parsed.test,
                document_id=job.item.document_id,
                chunk_index=job.item.chunk_index,
                task=job.item.task,
                template=job.task.template,
                prompt=completion.prompt,
                own_prompt=job.own_prompt,
                seed=job.item.seed,
                sampling=request.sampling,
                generator_version=request.generator_version,
                finish_reason=completion.finish_reason,
                completion=completion.text,
            )
        )
    return Made(
        samples=tuple(samples),
        unusable=tuple(sorted(refused, key=lambda entry: entry["index"])),
        tokens=sum(completion.tokens for completion in completions),
    )


def upload(blobs: Blobs, prefix: str, made: Made) -> tuple[BlobRef, ...]:
    """Store the files of a batch, to be committed by its manifest."""
    files: dict[str, Sequence[Sample | Mapping[str, Any]]] = {SAMPLES_FILE: made.samples, UNUSABLE_FILE: made.unusable}
    return tuple(
        manifests.upload_bytes(blobs, prefix=prefix, name=name, data=write_json_lines(records))
        for name, records in files.items()
    )


def details_of(
    request: GenerationRequested, made: Made, settings: GeneratorSection, *, seconds: float
) -> dict[str, Any]:
    """Return the details of a batch's manifest: everything that was asked, and what came of it."""
    return {
        "request_id": request.request_id,
        "generator_version": request.generator_version,
        "sequence": request.sequence,
        "engine": settings.engine,
        "batch_size": settings.batch_size,
        "sampling": request.sampling.model_dump(mode="json"),
        "items": [item.model_dump(mode="json") for item in request.items],
        "candidates": len(request.items),
        "samples": len(made.samples),
        "unusable": made.unusable_by_reason(),
        "tokens": made.tokens,
        "seconds": seconds,
        "documents": sorted({item.document_id for item in request.items}),
    }


def _ground(item: GenerationItem, document: Document | None, chunk_chars_max: int) -> Request | Unusable:
    """Return the item with its passage. Held-out text is benchmark material: nothing is ever made of it."""
    if document is None:
        return Unusable(reason="document_missing")
    if document.split != "training":
        return Unusable(reason="document_held_out")
    chunks = chunk(document, chunk_chars_max)
    if item.chunk_index >= len(chunks):
        return Unusable(reason="chunk_missing")
    return Request(chunk=chunks[item.chunk_index], audience=item.audience, difficulty=item.difficulty)


def _unusable(index: int, item: GenerationItem, reason: str) -> dict[str, Any]:
    return {"index": index, "reason": reason, "item": item.model_dump(mode="json")}
