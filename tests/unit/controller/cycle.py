"""A cycle in memory around the controller: the other services played by hand, and servers that fail on purpose."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jupiter import keys, manifests
from jupiter.blobs import Blobs
from jupiter.blobs.memory import MemoryBlobs
from jupiter.bus import Bus, Receipt
from jupiter.bus.codec import now
from jupiter.bus.memory import MemoryBus
from jupiter.config import ClusterConfig, DomainConfig, TaskMix
from jupiter.controller.deps import Deps
from jupiter.controller.wiring import assemble
from jupiter.events import (
    BaseModelImported,
    BenchmarkFrozen,
    CheckpointSaved,
    DocumentAccepted,
    EvaluationCompleted,
    Event,
    GeneratorLoaded,
    GeneratorLoadFailed,
    ServiceStatus,
)
from jupiter.ledger import LedgerEntry, read_ledger
from jupiter.records import canonical_json, digest_of
from jupiter.reports import EvaluationReport, ItemResult
from jupiter.service import Runtime, ServiceParts
from tests.unit.controller.cases import BENCHMARK, DOMAIN, better, items, report

WAIT_S = 10.0


class Killed(BaseException):
    """The process died here. Not an Exception, so that nothing handles it."""


class Mortal:
    """Counts writes to bus and store; after the `lifetime`-th every further one kills the process."""

    def __init__(self, lifetime: int | None = None) -> None:
        self.writes = 0
        self._lifetime = lifetime

    def write(self) -> None:
        if self._lifetime is not None and self.writes >= self._lifetime:
            raise Killed
        self.writes += 1


class MortalBlobs:
    """A process's view of a store that outlives it."""

    def __init__(self, blobs: MemoryBlobs, life: Mortal) -> None:
        self._blobs, self._life = blobs, life

    def __getattr__(self, name: str) -> Any:
        return getattr(self._blobs, name)

    def put(self, key: str, data: bytes) -> None:
        self._life.write()
        self._blobs.put(key, data)

    def create(self, key: str, data: bytes) -> bool:
        self._life.write()
        return self._blobs.create(key, data)

    def delete(self, key: str) -> None:
        self._life.write()
        self._blobs.delete(key)


class MortalBus:
    """A process's view of a bus that outlives it. Statuses do not count: they change nothing."""

    def __init__(self, bus: MemoryBus, life: Mortal) -> None:
        self._bus, self._life = bus, life

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)

    async def publish(self, event: Event) -> Receipt:
        if not isinstance(event, ServiceStatus):
            self._life.write()
        return await self._bus.publish(event)


class Cycle:
    """Servers that outlive every controller, and what the other services would do."""

    def __init__(
        self,
        directory: Path,
        *,
        bus: Bus | None = None,
        blobs: Blobs | None = None,
        name: str = DOMAIN,
        **controller: Any,
    ) -> None:
        self.bus: Any = bus or MemoryBus()
        self.blobs: Any = blobs or MemoryBlobs()
        self.name = name
        improvement = controller.pop("self_improvement", {})
        self.config = ClusterConfig.model_validate(
            {
                "domain": self.name,
                "data_dir": directory / "data",
                "self_improvement": {"min_steps_before_replace": 0, "benchmark_samples": 300, **improvement},
                "controller": {
                    "port": 0,
                    "state_file": directory / "pipeline_state.json",
                    "samples_per_request": 4,
                    **controller,
                },
            }
        )
        self.domain = DomainConfig(
            name=self.name,
            description="for tests",
            tasks=(TaskMix(task="explanation", weight=1), TaskMix(task="question_answer", weight=3)),
        )

    def runtime(self, life: Mortal | None = None, *, instance: str = "one") -> Runtime:
        """A controller process's connections; with a `life`, they kill it."""
        bus: Any = MortalBus(self.bus, life) if life else self.bus
        blobs: Any = MortalBlobs(self.blobs, life) if life else self.blobs
        return Runtime.in_memory(name="controller", config=self.config, bus=bus, blobs=blobs, instance=instance)

    async def parts(self, runtime: Runtime) -> ServiceParts[Deps]:
        return await assemble(runtime, self.domain)

    def ledger(self) -> tuple[LedgerEntry, ...]:
        return read_ledger(self.blobs, self.name)

    async def events(self, channel: str) -> list[Event]:
        return [entry.event async for entry in self.bus.read(keys.subject(channel, self.name), follow=False)]

    async def import_base(self) -> None:
        """What a generator does at its first start."""
        prefix = f"base_models/{self.name}/{digest_of('base')}"
        files = self._model(prefix, b"base weights")
        committed = manifests.commit(
            self.blobs, prefix=prefix, kind="base_model", domain=self.name, work_id="base", files=files, details={}
        )
        await self.bus.publish(
            BaseModelImported(
                domain=self.name, manifest_key=committed.key, manifest_sha256=committed.sha256, name="base"
            )
        )

    async def save_checkpoint(self, step: int, *, shard_sequence: int = 0) -> CheckpointSaved:
        """What the trainer does every so many steps."""
        prefix = keys.checkpoint_prefix(self.name, "run1", step)
        state = manifests.upload_bytes(self.blobs, prefix=prefix, name="training_state.json", data=b"{}")
        committed = manifests.commit(
            self.blobs,
            prefix=prefix,
            kind="checkpoint",
            domain=self.name,
            work_id=f"run1/{step}",
            files=(*self._model(prefix, b"weights %d" % step), state),
            details={"run": "run1", "step": step},
        )
        saved = CheckpointSaved(
            domain=self.name,
            checkpoint_id=digest_of(self.name, "run1", step),
            run="run1",
            step=step,
            tokens_seen=step * 1000,
            loss=1.0,
            shard_sequence=shard_sequence,
            manifest_key=committed.key,
            manifest_sha256=committed.sha256,
        )
        await self.bus.publish(saved)
        return saved

    async def evaluate(
        self, saved: CheckpointSaved, scored: Sequence[ItemResult] | None = None, *, against: LedgerEntry | None = None
    ) -> EvaluationReport:
        """What the evaluator does with a checkpoint; by default it finds it clearly better."""
        live = against or self.ledger()[-1]
        found = report(
            items(better) if scored is None else scored,
            step=saved.step,
            name=f"{saved.step} against {live.version}",
            domain=self.name,
            checkpoint_id=saved.checkpoint_id,
            generator_version=live.version,
            generator_manifest_sha256=live.manifest_sha256,
        )
        prefix = keys.evaluation_prefix(self.name, found.evaluation_id)
        ref = manifests.upload_bytes(self.blobs, prefix=prefix, name="report.json", data=canonical_json(found))
        committed = manifests.commit(
            self.blobs,
            prefix=prefix,
            kind="evaluation",
            domain=self.name,
            work_id=found.evaluation_id,
            files=(ref,),
            details={},
        )
        await self.bus.publish(
            EvaluationCompleted(
                domain=self.name,
                evaluation_id=found.evaluation_id,
                checkpoint_id=saved.checkpoint_id,
                run=saved.run,
                step=saved.step,
                generator_version=live.version,
                benchmark_digest=BENCHMARK,
                items=len(found.items),
                candidate_score=found.candidate.composite,
                generator_score=found.generator.composite,
                difference=found.difference,
                ci_low=found.ci_low,
                ci_high=found.ci_high,
                manifest_key=committed.key,
                manifest_sha256=committed.sha256,
            )
        )
        return found

    async def load(self, entry: LedgerEntry, *, instance: str = "generator-0", failed: str | None = None) -> None:
        """What a generator says after a flip."""
        shared: dict[str, Any] = {
            "domain": self.name,
            "version": entry.version,
            "ledger_sequence": entry.sequence,
            "instance": instance,
        }
        if failed is None:
            await self.bus.publish(GeneratorLoaded(**shared, manifest_sha256=entry.manifest_sha256, seconds=0.1))
        else:
            await self.bus.publish(GeneratorLoadFailed(**shared, reason=failed))

    async def say(self, service: str, *, instance: str = "0", **status: Any) -> None:
        """A service's status."""
        fields = {"stage": "working", "time": now(), **status}
        await self.bus.publish(
            ServiceStatus(domain=self.name, service=service, instance=f"{service}-{instance}", **fields)
        )

    async def publish_documents(self, count: int, *, chunks: int = 2) -> list[str]:
        """What the curator says of accepted documents."""
        made = []
        for number in range(count):
            document_id = digest_of("document", number)
            made.append(document_id)
            await self.bus.publish(accepted(document_id, chunks=chunks, domain=self.name))
        return made

    async def freeze_benchmark(self) -> None:
        """What the evaluator says once."""
        await self.bus.publish(
            BenchmarkFrozen(
                domain=self.name,
                digest=BENCHMARK,
                manifest_key="benchmarks/x/manifest.json",
                manifest_sha256=digest_of("m"),
                items=300,
                clusters=60,
            )
        )

    def _model(self, prefix: str, weights: bytes) -> tuple[Any, ...]:
        named = {"model/config.json": b"{}", "model/model.safetensors": weights, "golden.json": b"{}"}
        return tuple(
            manifests.upload_bytes(self.blobs, prefix=prefix, name=name, data=data) for name, data in named.items()
        )


def accepted(document_id: str, *, chunks: int = 2, split: str = "training", domain: str = DOMAIN) -> DocumentAccepted:
    """A document as the curator announces it."""
    return DocumentAccepted.model_validate(
        {
            "domain": domain,
            "document_id": document_id,
            "key": keys.document_key(domain, document_id),
            "kind": "text",
            "group": document_id[:8],
            "source": "test",
            "split": split,
            "chars": 100,
            "chunks": chunks,
        }
    )


async def eventually(condition: Callable[[], Any]) -> Any:
    """Wait until `condition` holds and return what it returned; fail after WAIT_S."""
    try:
        async with asyncio.timeout(WAIT_S):
            while not (outcome := condition()):  # noqa: ASYNC110 — what changes is outside of this loop's reach
                await asyncio.sleep(0.01)
            return outcome
    except TimeoutError:
        raise AssertionError(f"not within {WAIT_S} s") from None
