"""What the curator's tests are made of: documents, samples, a batch in the store, a frozen benchmark, a tokenizer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers

from jupiter import keys, manifests
from jupiter.blobs import Blobs
from jupiter.bus import Bus
from jupiter.config import ClusterConfig
from jupiter.config.sections import CuratorSection
from jupiter.curator.corpus import Corpus
from jupiter.curator.filters import Context
from jupiter.curator.handlers import Deps
from jupiter.curator.history import History
from jupiter.curator.metrics import Metrics
from jupiter.curator.pipeline import candidates_of
from jupiter.events import BatchGenerated, GenerationItem
from jupiter.generations import Pointer, point
from jupiter.overlap.forbidden import ForbiddenItem, ForbiddenTexts
from jupiter.records import Document, Sample, digest_of
from jupiter.sample_files import write_json_lines
from jupiter.service import Runtime

DOMAIN = "python_stdlib"
PASSAGE = (
    "Serialize obj to a JSON formatted string. If skipkeys is true then dict keys that are not basic types are "
    "skipped instead of raising a TypeError. The default separators give the compact form with indent 4."
)
BENCHMARK_TEXT = (
    "Shuffle the list in place with the Fisher and Yates algorithm and return nothing at all to the careless caller"
)
SETTINGS = CuratorSection()


def document(text: str = PASSAGE, **changes: Any) -> Document:
    """Return an `api` training document; `changes` override any field."""
    fields: dict[str, Any] = {
        "document_id": hashlib.sha256(text.encode()).hexdigest(),
        "domain": DOMAIN,
        "text": text,
        "source": "test:json",
        "title": "json.dumps",
        "kind": "api",
        "group": "json",
        "split": "training",
    }
    return Document(**(fields | changes))


def sample(response: str, instruction: str | None = "How does json.dumps serialize an obj?", **changes: Any) -> Sample:
    """Return a synthetic sample of `document()`."""
    fields: dict[str, Any] = {
        "sample_id": digest_of(instruction, response, changes.get("document_id"), changes.get("seed", 1)),
        "origin": "synthetic",
        "instruction": instruction,
        "response": response,
        "document_id": document().document_id,
        "task": "question_answer",
        "template": "plain",
        "seed": 1,
        "generator_version": 1,
        "finish_reason": "stop",
    }
    return Sample(**(fields | changes))


GOOD = "It will serialize obj to a JSON formatted string, and keys that are not basic types are skipped on request."


def no_tokens(texts: Sequence[str]) -> list[int]:
    """Count words: enough where no tokenizer is at stake."""
    return [max(1, len(text.split())) for text in texts]


def forbidden(*texts: str) -> ForbiddenTexts:
    return forbidden_items([(text,) for text in texts or (BENCHMARK_TEXT,)], SETTINGS.near_duplicate_threshold)


def forbidden_items(items: Sequence[Sequence[str]], threshold: float = 0.85) -> ForbiddenTexts:
    """Return one item per sequence of texts, in turn of the development half (`item-0`) and of the sealed one."""
    halves = ("development", "confirmation")
    made = [ForbiddenItem(f"item-{n}", halves[n % 2], tuple(texts)) for n, texts in enumerate(items)]
    return ForbiddenTexts(made, threshold=threshold, digest=digest_of("benchmark"))


def corpus(*documents: Document, held_out: Sequence[str] = (), texts: ForbiddenTexts | None = None) -> Corpus:
    made = Corpus(
        chunk_chars_max=SETTINGS.chunk_chars_max,
        near_duplicate_threshold=SETTINGS.near_duplicate_threshold,
        forbidden=texts or forbidden(),
        count_tokens=no_tokens,
    )
    made.add_training(documents or [document()])
    for document_id in held_out:
        made.add_held_out(document_id)
    return made


def refuse_code(code: str, test: str) -> str | None:
    """Stand in for a machine without a sandbox."""
    return "sandbox_unavailable"


def context(*samples: Sample, **changes: Any) -> Context:
    """Return what the filters of a batch of `samples` see; `changes` override any field."""
    known = changes.pop("corpus", None) or corpus()
    fields: dict[str, Any] = {
        "settings": SETTINGS,
        "history": History(near_duplicate_threshold=SETTINGS.near_duplicate_threshold),
        "corpus": known,
        "forbidden": forbidden(),
        "run_code": refuse_code,
        "batch": candidates_of(samples, known),
    }
    return Context(**(fields | changes))


def word_tokenizer() -> bytes:
    """Return a tokenizer.json that makes one token of every word and sign."""
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return str(tokenizer.to_str()).encode()


def register_generator(blobs: Blobs, domain: str = DOMAIN) -> None:
    """Commit generator version 1, of which the curator reads the tokenizer."""
    prefix = keys.generator_prefix(domain, 1)
    ref = manifests.upload_bytes(blobs, prefix=prefix, name="tokenizer.json", data=word_tokenizer())
    manifests.commit(
        blobs, prefix=prefix, kind="generator", domain=domain, work_id="v1", files=(ref,), details={"version": 1}
    )


def freeze_benchmark(
    blobs: Blobs, domain: str = DOMAIN, texts: Sequence[str] = (BENCHMARK_TEXT,), *, generation: int = 1
) -> str:
    """Commit a benchmark of one item per text, as the evaluator does, and return its digest."""
    digest = digest_of("benchmark", list(texts))
    prefix = keys.benchmark_prefix(domain, digest)
    items = write_json_lines({"item_id": f"item-{n}", "texts": [text]} for n, text in enumerate(texts))
    ref = manifests.upload_bytes(blobs, prefix=prefix, name="items.jsonl.zst", data=items)
    committed = manifests.commit(
        blobs, prefix=prefix, kind="benchmark", domain=domain, work_id=digest, files=(ref,), details={}
    )
    pointer = Pointer(digest=digest, manifest_key=committed.key, manifest_sha256=committed.sha256)
    point(blobs, domain, generation, pointer)
    return digest


def unusable(index: int, reason: str = "empty", completion: str = " ") -> dict[str, Any]:
    """Return the line of an item of which no sample came, as a generator writes it."""
    item = GenerationItem(
        document_id=document().document_id, chunk_index=0, task="need", audience="a", difficulty="d", seed=index
    )
    dumped = item.model_dump(mode="json")
    return {"index": index, "reason": reason, "item": dumped, "prompt": "Sentence:", "completion": completion}


def commit_batch(
    blobs: Blobs,
    samples: Sequence[Sample | dict[str, Any]],
    *,
    unusable: Sequence[dict[str, Any]] = (),
    sequence: int = 1,
    domain: str = DOMAIN,
) -> BatchGenerated:
    """Commit a batch as a generator does and return its event."""
    batch_id = digest_of("batch", domain, sequence)
    prefix = keys.batch_prefix(domain, batch_id)
    lines = {"samples.jsonl.zst": samples, "unusable.jsonl.zst": unusable}
    committed = manifests.commit(
        blobs,
        prefix=prefix,
        kind="batch",
        domain=domain,
        work_id=batch_id,
        files=tuple(
            manifests.upload_bytes(blobs, prefix=prefix, name=name, data=write_json_lines(records))
            for name, records in lines.items()
        ),
        details={"request_id": batch_id, "generator_version": 1, "sequence": sequence},
    )
    return BatchGenerated(
        domain=domain,
        batch_id=batch_id,
        generator_version=1,
        sequence=sequence,
        manifest_key=committed.key,
        manifest_sha256=committed.sha256,
        samples=len(samples),
        tokens=0,
        seconds=0.0,
    )


def published(text: str, **changes: Any) -> bytes:
    """Return the message of a user who publishes a document."""
    return json.dumps({"text": text, "source": f"test:{text[:40]}", "split": "training"} | changes).encode()


def deps_for(bus: Bus, blobs: Blobs, *, domain: str = DOMAIN, **settings: Any) -> Deps:
    """Return the handlers' dependencies around the two servers or their twins; `settings` override the section's."""
    config = ClusterConfig(domain=domain, curator=CuratorSection(**settings))
    runtime = Runtime.in_memory(name="curator", config=config, bus=bus, blobs=blobs)
    return Deps(
        runtime=runtime,
        settings=config.curator,
        run_code=refuse_code,
        metrics=Metrics(runtime.telemetry.registry),
    )
