"""A cycle in memory around the controller: the other services played by hand, and servers that fail on purpose."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from jupiter import keys, manifests
from jupiter.blobs import Blobs
from jupiter.blobs.memory import MemoryBlobs
from jupiter.bus import Bus, Receipt
from jupiter.bus.codec import now
from jupiter.bus.memory import MemoryBus
from jupiter.config import ClusterConfig, DomainConfig, TaskMix
from jupiter.controller.deps import Deps
from jupiter.controller.metronome import request_id
from jupiter.controller.wiring import assemble
from jupiter.events import (
    BaseModelImported,
    BatchGenerated,
    BenchmarkFrozen,
    CheckpointSaved,
    ConfirmationCompleted,
    ConfirmationRequested,
    DocumentAccepted,
    EvaluationCompleted,
    Event,
    GenerationItem,
    GenerationRequested,
    GeneratorLoaded,
    GeneratorLoadFailed,
    ServiceStatus,
    ShadowGenerated,
    ShadowJudged,
    ShadowRequested,
    ShardCurated,
)
from jupiter.ledger import LedgerEntry, current, opening_of, read_ledger
from jupiter.records import Sampling, canonical_json, digest_of
from jupiter.reports import (
    Confirmation,
    EvaluationReport,
    General,
    GeneralItem,
    GeneralKind,
    ItemResult,
    Shadow,
    ShadowSide,
)
from jupiter.service import Runtime, ServiceParts
from tests.unit.controller.cases import BENCHMARK, DOMAIN, better, items, report

WAIT_S = 10.0
# Items of every batch: enough that one more or less refused sample is no fall.
BATCH_ITEMS = 40


E = TypeVar("E", ConfirmationRequested, ShadowRequested)


class Killed(BaseException):
    """The process died here. Not an Exception, so that nothing handles it."""


# Diversity figures of a batch that is as varied as the real data.
FIGURES = ("distinct_1", "distinct_2", "distinct_4", "compression_ratio", "self_similarity", "words_mean")
VARIED = {f"{group}.{name}": 0.5 for group in ("synthetic", "real") for name in FIGURES}


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


class MeddledBlobs:
    """A process's view of a store; just before its first call of that kind for a key that ends so, `meddle` happens."""

    def __init__(self, blobs: Blobs, *, call: Literal["get", "create"], key: str, meddle: Callable[[], object]) -> None:
        self._blobs, self._meddle = blobs, meddle
        self._awaited: tuple[str, str] | None = (call, key)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._blobs, name)

    def get(self, key: str) -> bytes:
        self._called("get", key)
        return self._blobs.get(key)

    def create(self, key: str, data: bytes) -> bool:
        self._called("create", key)
        return self._blobs.create(key, data)

    def _called(self, call: str, key: str) -> None:
        if self._awaited and call == self._awaited[0] and key.endswith(self._awaited[1]):
            self._awaited = None
            self._meddle()


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
        self.scored: dict[str, tuple[ItemResult, ...]] = {}
        """evaluation_id -> the items of both halves, as the evaluator would score them."""
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

    async def save_checkpoint(
        self, step: int, *, shard_sequence: int = 0, shards: Sequence[ShardCurated] = (), run: str = "run1"
    ) -> CheckpointSaved:
        """What the trainer does every so many steps; `shards`: what it was trained on."""
        prefix = keys.checkpoint_prefix(self.name, run, step)
        state = manifests.upload_bytes(self.blobs, prefix=prefix, name="training_state.json", data=b"{}")
        committed = manifests.commit(
            self.blobs,
            prefix=prefix,
            kind="checkpoint",
            domain=self.name,
            work_id=f"{run}/{step}",
            files=(*self._model(prefix, b"weights %d" % step), state),
            details={"run": run, "step": step, "shards": [shard.shard_id for shard in shards]},
        )
        saved = CheckpointSaved(
            domain=self.name,
            checkpoint_id=digest_of(self.name, run, step),
            run=run,
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
        live = against or current(self.ledger())
        assert live is not None
        scored = items(better) if scored is None else scored
        found = report(
            [item for item in scored if item.half == "development"],
            step=saved.step,
            evaluation_id=digest_of(saved.manifest_sha256, live.manifest_sha256, BENCHMARK),
            domain=self.name,
            run=saved.run,
            general=as_able_as_before(),
            checkpoint_id=saved.checkpoint_id,
            checkpoint_manifest_key=saved.manifest_key,
            checkpoint_manifest_sha256=saved.manifest_sha256,
            generator_version=live.version,
            generator_manifest_sha256=live.manifest_sha256,
        )
        self.scored[found.evaluation_id] = tuple(scored)
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

    async def asked(self, kind: type[E], evaluation_id: str, *, channel: str) -> E | None:
        """Return what the controller asked for about an evaluation."""
        found = [event for event in await self.events(channel) if isinstance(event, kind)]
        return next((event for event in found if event.evaluation_id == evaluation_id), None)

    async def confirm(self, found: EvaluationReport, **changes: Any) -> None:
        """What the evaluator does once the sealed half was opened: score both models on it."""
        opening = opening_of(self.ledger(), found.evaluation_id)
        assert opening is not None
        assert opening.opening is not None
        sealed = [item for item in self.scored[found.evaluation_id] if item.half == "confirmation"]
        summary = report(sealed, step=found.step, name="sealed")
        confirmation = Confirmation(
            evaluation_id=found.evaluation_id,
            opening=opening.opening,
            ledger_sequence=opening.sequence,
            benchmark_digest=found.benchmark_digest,
            checkpoint_manifest_sha256=found.checkpoint_manifest_sha256,
            generator_manifest_sha256=found.generator_manifest_sha256,
            items=tuple(sealed),
            candidate=summary.candidate,
            generator=summary.generator,
            difference=summary.difference,
            ci_low=summary.ci_low,
            ci_high=summary.ci_high,
            generated_at=now(),
            wall_s=1.0,
        ).model_copy(update=changes)
        prefix = f"{keys.evaluation_prefix(self.name, found.evaluation_id)}/sealed"
        ref = manifests.upload_bytes(
            self.blobs, prefix=prefix, name="confirmation.json", data=canonical_json(confirmation)
        )
        committed = self._commit(prefix, kind="evaluation", work_id=found.evaluation_id, files=(ref,))
        await self.bus.publish(
            ConfirmationCompleted(
                domain=self.name,
                evaluation_id=found.evaluation_id,
                opening=opening.opening,
                items=len(sealed),
                candidate_score=summary.candidate.composite,
                generator_score=summary.generator.composite,
                difference=summary.difference,
                manifest_key=committed.key,
                manifest_sha256=committed.sha256,
            )
        )

    async def make_batch(self, *, flip: LedgerEntry | None = None) -> BatchGenerated:
        """A request of the live version (or under that `flip`), and what a generator makes of it."""
        live = flip or current(self.ledger())
        assert live is not None
        sequence = 1 + len(await self.events("generation"))
        batch_id = request_id(live, sequence)
        items = tuple(
            GenerationItem(
                document_id=digest_of("document", number),
                chunk_index=0,
                task="explanation",
                audience="students",
                difficulty="easy",
                seed=number,
            )
            for number in range(BATCH_ITEMS)
        )
        await self.bus.publish(
            GenerationRequested(
                domain=self.name,
                request_id=batch_id,
                generator_version=live.version,
                sequence=sequence,
                items=items,
                sampling=Sampling(),
            )
        )
        committed = self._commit(
            keys.batch_prefix(self.name, batch_id),
            kind="batch",
            work_id=batch_id,
            details={"generator_version": live.version},
        )
        batch = BatchGenerated(
            domain=self.name,
            batch_id=batch_id,
            generator_version=live.version,
            sequence=sequence,
            manifest_key=committed.key,
            manifest_sha256=committed.sha256,
            samples=BATCH_ITEMS,
            tokens=1_000,
            seconds=1.0,
        )
        await self.bus.publish(batch)
        return batch

    async def curate(self, batch: BatchGenerated, *, accepted: int = 30, **figures: float) -> ShardCurated:
        """What the curator says of a batch; `figures` are its diversity."""
        committed = self._commit(
            keys.shard_prefix(self.name, batch.batch_id),
            kind="shard",
            work_id=batch.batch_id,
            details={"contamination": {"benchmark": BENCHMARK, "synthetic": 0, "real": 0, "items": {}}},
        )
        curated = ShardCurated(
            domain=self.name,
            shard_id=batch.batch_id,
            batch_id=batch.batch_id,
            generator_version=batch.generator_version,
            manifest_key=committed.key,
            manifest_sha256=committed.sha256,
            samples=accepted,
            tokens=1_000,
            real_tokens=350,
            accepted=accepted,
            candidates=batch.samples,
            dropped={"grounding": batch.samples - accepted},
            batch_sequence=batch.sequence,
            diversity=figures,
        )
        await self.bus.publish(curated)
        return curated

    async def shadow(self, found: EvaluationReport, *, accepted: int = 30, **changes: Any) -> None:
        """What generator and curator do when a shadow batch was asked for."""
        request = await self.asked(ShadowRequested, found.evaluation_id, channel="shadows")
        assert request is not None
        made = self._commit(keys.shadow_batch_prefix(self.name, found.evaluation_id), kind="batch", work_id="shadow")
        judged = Shadow(
            evaluation_id=found.evaluation_id,
            batch_id=request.batch_id,
            clusters=tuple(digest_of("document", number) for number in range(BATCH_ITEMS)),
            candidate=side(made.sha256, accepted),
            incumbent=side(request.batch_manifest_sha256, 30),
            real=dict.fromkeys(FIGURES, 0.5),
        ).model_copy(update=changes)
        committed = self._commit(
            keys.shadow_judgement_prefix(self.name, found.evaluation_id),
            kind="evaluation",
            work_id=found.evaluation_id,
            details=judged.model_dump(mode="json"),
        )
        shared: dict[str, Any] = {"domain": self.name, "evaluation_id": found.evaluation_id}
        await self.bus.publish(
            ShadowGenerated(
                **shared,
                batch_id=request.batch_id,
                batch_manifest_key=request.batch_manifest_key,
                batch_manifest_sha256=request.batch_manifest_sha256,
                manifest_key=made.key,
                manifest_sha256=made.sha256,
            )
        )
        await self.bus.publish(
            ShadowJudged(
                **shared,
                manifest_key=committed.key,
                manifest_sha256=committed.sha256,
                candidate_accepted=sum(judged.candidate.accepted),
                incumbent_accepted=sum(judged.incumbent.accepted),
                items=BATCH_ITEMS,
            )
        )

    async def answer(self, found: EvaluationReport, *, wait_s: float = WAIT_S) -> None:
        """Play evaluator, generator and curator for a running controller until the evaluation is settled."""
        if not any(isinstance(event, BatchGenerated) for event in await self.events("batches")):
            await self.make_batch(flip=self.ledger()[0])
        evaluation_id, confirmed, shadowed = found.evaluation_id, False, False
        async with asyncio.timeout(wait_s):
            while self.blobs.stat(keys.verdict_key(self.name, evaluation_id)) is None:
                if not confirmed and await self.asked(ConfirmationRequested, evaluation_id, channel="confirmations"):
                    await self.confirm(found)
                    confirmed = True
                if not shadowed and await self.asked(ShadowRequested, evaluation_id, channel="shadows"):
                    await self.shadow(found)
                    shadowed = True
                await asyncio.sleep(0.01)

    def _commit(
        self, prefix: str, *, kind: str, work_id: str, files: tuple[Any, ...] = (), details: Any = None
    ) -> manifests.Committed:
        return manifests.commit(
            self.blobs, prefix=prefix, kind=kind, domain=self.name, work_id=work_id, files=files, details=details or {}
        )

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


def as_able_as_before() -> General:
    """Two models that are equally good at everything else."""
    kinds: tuple[tuple[GeneralKind, float], ...] = (("knowledge", 1.0), ("text", 1.2), ("code", 0.9))
    items = tuple(
        GeneralItem(item_id=f"{kind}-{number}", kind=kind, bytes=100, candidate=score, generator=score)
        for kind, score in kinds
        for number in range(10)
    )
    return General(suite="for tests 1", suite_digest=digest_of("suite"), items=items)


def side(manifest_sha256: str, accepted: int) -> ShadowSide:
    """One version's batch, of which so many items were accepted."""
    return ShadowSide(
        manifest_sha256=manifest_sha256,
        items=BATCH_ITEMS,
        samples=BATCH_ITEMS,
        accepted=tuple(number < accepted for number in range(BATCH_ITEMS)),
        dropped={"grounding": BATCH_ITEMS - accepted},
        grounding=0.8,
        duplicates=0.05,
        diversity=VARIED,
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


async def registered(cycle: Cycle) -> None:
    await cycle.import_base()
    await eventually(cycle.ledger)
