"""The stage of the generator's tests: tiny models as versions, a ledger, documents, a service on in-memory twins.

Owns: what the tests of this folder share. Does not know: what each of them shows.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from jupiter import keys, ledger, manifests
from jupiter.blobs.memory import MemoryBlobs
from jupiter.bus.memory import MemoryBus
from jupiter.compute import ComputeLease
from jupiter.config import ClusterConfig
from jupiter.config.sections import LocalSection
from jupiter.deliveries import Pauses
from jupiter.events import (
    BatchGenerated,
    Event,
    GenerationItem,
    GenerationRequested,
    GeneratorPromoted,
    GeneratorRolledBack,
    ShadowRequested,
)
from jupiter.generator.config import versions_directory
from jupiter.generator.engines import Completion, EngineSettings, Progress, Prompt
from jupiter.generator.engines.transformers import TransformersEngine
from jupiter.generator.handlers import Deps, subscriptions
from jupiter.generator.reloading import Reloader
from jupiter.generator.serving import Serving
from jupiter.generator.versions import Versions
from jupiter.ledger import GENESIS_HASH, LedgerEntry, entry_hash
from jupiter.manifests import Committed
from jupiter.modeling import record_golden
from jupiter.records import BlobRef, Document, Sample, Sampling, canonical_json, digest_of
from jupiter.sample_files import read_json_lines
from jupiter.service import Runtime, ServiceParts, running
from tests.tiny_model import make_tiny_model

DOMAIN = "domain_a"
SHORT = Pauses(backoff_s=(0, 0, 0, 0), unavailable_s=0, drain_s=5, status_s=0.01)
WAIT_S_MAX = 100
"""Long, because tests run beside others on few cores; nothing waits for it to pass."""
SAMPLING = Sampling(temperature=1.0, top_p=1.0, max_new_tokens=8)


class WatchedEngine(TransformersEngine):
    """The real engine; a test may hold it in the middle of a batch, or fail its loads, and sees what it did."""

    def __init__(self, settings: EngineSettings) -> None:
        super().__init__(settings)
        self.gate = threading.Event()
        self.gate.set()
        self.generating = threading.Event()
        self.batches = 0
        self.loads = 0
        self.faults: list[Exception] = []
        """Raised by the next loads, one each."""
        self.batch_faults: list[Exception] = []
        """Raised by the next batches, one each, after their first step."""
        self.released: list[Any] = []

    def load(self, directory: Path) -> Any:
        self.loads += 1
        if self.faults:
            raise self.faults.pop(0)
        return super().load(directory)

    def release(self, handle: Any) -> None:
        self.released.append(handle)
        super().release(handle)

    def generate(
        self, handle: Any, prompts: Sequence[Prompt], *, sampling: Sampling, progress: Progress
    ) -> list[Completion]:
        self.batches += 1

        def held(samples: int, tokens: int) -> None:
            self.generating.set()
            if not self.gate.wait(timeout=20):
                raise TimeoutError("the test never opened the gate")
            if self.batch_faults:
                raise self.batch_faults.pop(0)
            progress(samples, tokens)

        return super().generate(handle, prompts, sampling=sampling, progress=held)


@dataclass(kw_only=True)
class Stage:
    """Everything around one generator (or several, over the same bus and blobs)."""

    directory: Path
    domain: str = DOMAIN
    compute_slots: int = 0
    turn_s_max: float = 20
    hidden: int = 48
    """Width of the models: vLLM's attention wants 128 or more."""
    # The in-memory twins, or the real ones under the same contract.
    bus: Any = field(default_factory=MemoryBus)
    blobs: Any = field(default_factory=MemoryBlobs)
    entries: list[LedgerEntry] = field(default_factory=list)
    documents: list[Document] = field(default_factory=list)

    @property
    def config(self) -> ClusterConfig:
        local = LocalSection(compute_slots=self.compute_slots, turn_s_max=self.turn_s_max)
        return ClusterConfig(domain=self.domain, data_dir=self.directory / "data", local=local)

    def deps(self, *, instance: str = "one") -> Deps:
        """Build what `wiring` builds, around the twins and the watched engine."""
        config = self.config
        runtime = Runtime.in_memory(
            name="generator", config=config, bus=self.bus, blobs=self.blobs, instance=instance, pauses=SHORT
        )
        engine = WatchedEngine(EngineSettings(dtype="bfloat16", device="cpu", batch_size=64))
        lease, serving = ComputeLease.of(config), Serving()
        versions = Versions(versions_directory(config) / instance)
        reloader = Reloader(runtime=runtime, engine=engine, lease=lease, serving=serving, versions=versions)
        return Deps(runtime=runtime, engine=engine, lease=lease, serving=serving, reloader=reloader)

    @asynccontextmanager
    async def generator(self, *, instance: str = "one") -> AsyncIterator[tuple[Deps, WatchedEngine]]:
        """Run a generator service during the block."""
        deps = self.deps(instance=instance)
        parts = ServiceParts(deps=deps, subscriptions=subscriptions(), background=[deps.reloader.run])
        assert isinstance(deps.engine, WatchedEngine)
        async with running(deps.runtime, parts):
            yield deps, deps.engine

    def store_version(
        self, version: int, *, seed: int | None = None, spoil: Callable[[Path], None] | None = None
    ) -> Committed:
        """Commit a tiny model (with its golden outputs) as `generators/<domain>/v<n>`.

        `spoil` changes the model's files after the golden outputs were recorded, before they are stored.
        """
        prefix = keys.generator_prefix(self.domain, version)
        return manifests.commit(
            self.blobs,
            prefix=prefix,
            kind="generator",
            domain=self.domain,
            work_id=f"v{version}",
            files=self._store_model(prefix, seed=version if seed is None else seed, spoil=spoil),
            details={"version": version},
        )

    def store_checkpoint(
        self,
        step: int,
        *,
        seed: int | None = None,
        spoil: Callable[[Path], None] | None = None,
        context: int = 2048,
    ) -> Committed:
        """Commit a tiny model as a checkpoint, training state beside it, as the trainer does."""
        prefix = keys.checkpoint_prefix(self.domain, "run", step)
        state = manifests.upload_bytes(self.blobs, prefix=prefix, name="training_state/step.json", data=b"{}")
        return manifests.commit(
            self.blobs,
            prefix=prefix,
            kind="checkpoint",
            domain=self.domain,
            work_id=digest_of(self.domain, "run", step),
            files=(
                *self._store_model(prefix, seed=step if seed is None else seed, spoil=spoil, context=context),
                state,
            ),
            details={"run": "run", "step": step},
        )

    def _store_model(
        self, prefix: str, *, seed: int, spoil: Callable[[Path], None] | None, context: int = 2048
    ) -> tuple[BlobRef, ...]:
        model = make_tiny_model(
            self.directory / f"made_{digest_of(prefix)}", seed=seed, context=context, hidden=self.hidden
        )
        golden = record_golden(model)
        if spoil is not None:
            spoil(model)
        refs = [
            manifests.upload_file(self.blobs, prefix=prefix, name=f"model/{path.name}", path=path)
            for path in sorted(model.iterdir())
        ]
        refs.append(manifests.upload_bytes(self.blobs, prefix=prefix, name="golden.json", data=canonical_json(golden)))
        shutil.rmtree(model)
        return tuple(refs)

    def shadow_request(self, batch: BatchGenerated, checkpoint: Committed) -> ShadowRequested:
        """Ask that the checkpoint repeat a batch."""
        return ShadowRequested(
            domain=self.domain,
            evaluation_id=digest_of("evaluation", checkpoint.manifest.work_id),
            checkpoint_id=checkpoint.manifest.work_id,
            checkpoint_manifest_key=checkpoint.key,
            checkpoint_manifest_sha256=checkpoint.sha256,
            generator_version=batch.generator_version,
            batch_id=batch.batch_id,
            batch_manifest_key=batch.manifest_key,
            batch_manifest_sha256=batch.manifest_sha256,
        )

    def store_imported(self, imported: Any) -> Committed:
        """Commit the imported base model as version 1: the same files, as the controller does."""
        base = manifests.read(self.blobs, imported.manifest_key, sha256=imported.manifest_sha256)
        return manifests.commit(
            self.blobs,
            prefix=keys.generator_prefix(self.domain, 1),
            kind="generator",
            domain=self.domain,
            work_id="v1",
            files=base.manifest.files,
            details={"version": 1},
        )

    async def flip(self, version: int, *, announce: bool = True) -> LedgerEntry:
        """Make a stored version current: the ledger entry, then its event."""
        manifest_key = keys.manifest_key(keys.generator_prefix(self.domain, version))
        last = self.entries[-1] if self.entries else None
        action: Literal["registered", "promoted", "rolled_back"] = (
            "registered" if last is None else "promoted" if version > last.version else "rolled_back"
        )
        entry = LedgerEntry(
            domain=self.domain,
            sequence=len(self.entries) + 1,
            action=action,
            version=version,
            previous_version=last.version if last else None,
            manifest_key=manifest_key,
            manifest_sha256=hashlib.sha256(self.blobs.get(manifest_key)).hexdigest(),
            actor="test",
            reason="test",
            time="2026-01-01T00:00:00Z",
            previous_hash=entry_hash(last) if last else GENESIS_HASH,
        )
        assert self.blobs.create(keys.ledger_key(self.domain, entry.sequence), canonical_json(entry))
        self.entries.append(entry)
        assert ledger.current(ledger.read_ledger(self.blobs, self.domain)) == entry
        if announce:
            await self.announce(entry)
        return entry

    async def announce(self, entry: LedgerEntry) -> None:
        about: dict[str, Any] = {
            "domain": self.domain,
            "version": entry.version,
            "previous_version": entry.previous_version,
            "ledger_sequence": entry.sequence,
            "manifest_key": entry.manifest_key,
            "manifest_sha256": entry.manifest_sha256,
            "reason": entry.reason,
        }
        kind = GeneratorRolledBack if entry.action == "rolled_back" else GeneratorPromoted
        await self.bus.publish(kind(**about))

    def add_document(self, number: int, *, split: Literal["training", "held_out"] = "training") -> Document:
        text = f"Return the {number}th thing that was put in, or None when there is none."
        document = Document(
            document_id=hashlib.sha256(text.encode()).hexdigest(),
            domain=self.domain,
            text=text,
            source=f"test:{number}",
            title=f"things.get_{number}",
            kind="api",
            group="things",
            split=split,
        )
        self.blobs.create(keys.document_key(self.domain, document.document_id), canonical_json(document))
        self.documents.append(document)
        return document

    def request(self, sequence: int, *, version: int, items: int = 3, sampling: Sampling = SAMPLING) -> Any:
        """Return a request over the documents on the stage (made if there are too few)."""
        while len(self.documents) < items:
            self.add_document(len(self.documents))
        tasks = ("restate", "need", "explain")
        return GenerationRequested(
            domain=self.domain,
            request_id=digest_of(self.domain, version, len(self.entries), sequence),
            generator_version=version,
            sequence=sequence,
            sampling=sampling,
            items=tuple(
                GenerationItem(
                    document_id=self.documents[number].document_id,
                    chunk_index=0,
                    task=tasks[number % 3],
                    audience="a beginner",
                    difficulty="basic",
                    seed=1000 * sequence + number,
                )
                for number in range(items)
            ),
        )

    async def published(self, channel: str) -> list[Any]:
        return [entry.event async for entry in self.bus.read(f"{channel}.{self.domain}", follow=False)]

    async def until_published(self, channel: str, count: int) -> list[Any]:
        """Return the channel's events once there are `count`."""
        found: list[Event] = []
        async with asyncio.timeout(WAIT_S_MAX):
            async for entry in self.bus.read(f"{channel}.{self.domain}"):
                found.append(entry.event)
                if len(found) == count:
                    break
        return found

    def samples(self, event: Any) -> list[Sample]:
        """Return the samples of a BatchGenerated or ShadowGenerated."""
        manifest = manifests.read(self.blobs, event.manifest_key, sha256=event.manifest_sha256).manifest
        data = self.blobs.get(manifest.file("samples.jsonl.zst").key)
        return [Sample.model_validate_json(line) for line in read_json_lines(data)]


async def until(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    async with asyncio.timeout(WAIT_S_MAX):
        while True:
            answer = condition()
            if answer if isinstance(answer, bool) else await answer:
                return
            await asyncio.sleep(0.005)
