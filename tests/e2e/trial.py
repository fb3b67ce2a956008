"""A trial of candidates: one domain, the real services on real servers, and checkpoints that somebody else put there.

Owns: the processes and their configuration, the planting, and what the controller decided in the end.
Does not know: who is a cheat, or what is wrong with whom.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jupiter.local.leash
from jupiter import keys, manifests
from jupiter.blobs.s3 import S3Blobs
from jupiter.bus.jetstream import JetStreamBus
from jupiter.config import ClusterConfig
from jupiter.config.loading import settings_as_environment
from jupiter.controller.gate import Verdict
from jupiter.errors import NotFound
from jupiter.events import CheckpointSaved, Event
from jupiter.ledger import LedgerEntry, current, flips, read_ledger
from jupiter.local.documents import publish
from jupiter.local.endpoints import choose_ports
from jupiter.modeling import record_golden
from jupiter.records import PublishedDocument, canonical_json, digest_of
from tests.e2e.school import ASKED, TASK
from tests.servers import NatsServer, S3Server

__all__ = ["MIN_STEPS", "Trial", "unpassed"]

T = TypeVar("T")
E = TypeVar("E", bound=Event)

ROOT = Path(__file__).parents[2]
LEASH = (sys.executable, "-I", "-S", jupiter.local.leash.__file__, str(int(signal.SIGKILL)))
"""A service dies with the test process, however that one ends; the process's id follows."""
WAIT_S = 300.0
"""Generous: a service imports torch on cores that other tests use too."""
POLL_S = 0.25
STOP_S = 60.0
MIN_STEPS = 60
"""Steps below which a candidate is held, however good: how a control shows that all else would pass."""

SETTINGS: Mapping[str, Any] = {
    "self_improvement": {
        "min_steps_before_replace": MIN_STEPS,
        "benchmark_samples": 120,
        # A few items that fall the other way on another machine shall decide nothing.
        "improvement_threshold": 0.11,
        "dimension_loss_max": 0.2,
        # So small a model forgets at once what it does not train on, and answers general questions by chance.
        "general_loss_max": 0.6,
        "general_knowledge_loss_max": 0.3,
        "keep_last_n_checkpoints": 50,
    },
    "generator": {"engine": "tests.e2e.speaking_engine", "device": "cpu"},
    # One after the other, so that every benchmark has the same items.
    "curator": {"documents_in_flight_max": 1},
    "evaluator": {"device": "cpu", "dtype": "float32", "corpus_quiet_s": 1.0},
    "controller": {
        "samples_per_request": 64,
        "in_flight_requests_max": 1,
        # Nobody trains for long here: one shard is all that is needed.
        "shards_ahead_max": 1,
        "load_timeout_s": 200,
        "sampling": {"temperature": 0, "max_new_tokens": 32},
    },
    "trainer": {
        "device": "cpu",
        "precision": "float32",
        "tokens_per_step": 512,
        "sequence_length": 256,
        "learning_rate": 7e-4,
        "passes_per_shard": 20,
        "pass_spacing_shards": 0,
        "as_generated_share": 0,
        "divergence_nats": 100.0,
    },
    "local": {"threads": 1, "turn_s_max": 1.0},
    "telemetry": {"log_format": "text"},
}
DOMAIN_FILE = f"""\
description: What is kept where
tasks: [{{task: {TASK}}}]
benchmark_kinds: [{", ".join(ASKED)}]
"""


class Trial:
    """The services of one domain; `stop` ends whatever still runs."""

    def __init__(self, place: Path, *, nats: NatsServer, s3: S3Server, base: Path) -> None:
        self.domain = f"trial_{secrets.token_hex(5)}"
        self._place = place
        section = s3.section(bucket=f"trial-{secrets.token_hex(5)}")
        [port] = choose_ports(("api",), remembered={}, wanted={}).values()
        self.config = ClusterConfig.model_validate(
            {
                **SETTINGS,
                "domain": self.domain,
                "data_dir": place / "data",
                "nats": nats.section(ack_wait_s=5.0),
                "s3": section,
                "generator": {**SETTINGS["generator"], "base_model": str(base)},
                "controller": {**SETTINGS["controller"], "port": port, "state_file": place / "pipeline_state.json"},
            }
        )
        self.blobs = S3Blobs(section)
        self.blobs.start()
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._sections: dict[str, Mapping[str, Mapping[str, Any]]] = {}
        domains = place / "config" / "domains"
        domains.mkdir(parents=True)
        (domains / f"{self.domain}.yaml").write_text(DOMAIN_FILE)

    def _bus(self) -> JetStreamBus:
        return JetStreamBus(self.config.nats, source="jupiter/test")

    def have(self, service: str, **sections: Mapping[str, Any]) -> None:
        """Have the service run with these changes of its configuration and no others; one that does is left alone."""
        if service in self._running:
            if self._sections[service] == sections:
                return
            self.stop(service)
        changed = self.config.model_dump()
        for name, values in sections.items():
            changed[name] |= values
        settings = settings_as_environment(ClusterConfig.model_validate(changed))
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("JUPITER_")}
        with self._log(service).open("ab") as log:
            self._running[service] = subprocess.Popen(
                (*LEASH, str(os.getpid()), sys.executable, "-m", f"jupiter.{service}"),
                cwd=self._place,
                env={**inherited, **settings, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
                stdout=log,
                stderr=log,
            )
        self._sections[service] = sections

    def stop(self, *services: str) -> None:
        """Stop the services as an operator does; all of them when none is named."""
        ending = [self._running.pop(name) for name in services or tuple(self._running)]
        for process in ending:
            process.terminate()
        for process in ending:
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _log(self, service: str) -> Path:
        return self._place / f"{service}.log"

    def until(self, condition: Callable[[], T | None], *, what: str) -> T:
        """Return what `condition` finds; a service that ended meanwhile shows what it said."""
        deadline = time.monotonic() + WAIT_S
        while (found := condition()) is None:
            for name, process in self._running.items():
                if process.poll() is not None:
                    raise AssertionError(f"{name} ended:\n{self._log(name).read_text(errors='replace')[-4000:]}")
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {WAIT_S} s for {what}, in vain; logs in {self._place}")
            time.sleep(POLL_S)
        return found

    def ledger(self) -> tuple[LedgerEntry, ...]:
        return read_ledger(self.blobs, self.domain)

    def live(self) -> LedgerEntry:
        """Return the flip to the version that serves."""
        live = current(self.ledger())
        assert live is not None
        return live

    def promoted(self) -> list[str | None]:
        """Return the evaluations that anything was promoted for."""
        return [entry.evaluation_id for entry in flips(self.ledger()) if entry.action == "promoted"]

    def manifests(self, kind: str) -> list[manifests.Committed]:
        """Return what is committed of a kind (`shards`, `batches`), in no order."""
        prefix = f"{kind}/{self.domain}/"
        found = [info.key for info in self.blobs.list(prefix) if info.key.endswith("/manifest.json")]
        return [manifests.read(self.blobs, key) for key in found]

    def plant(self, model: Path, *, run: str, step: int, shards: Sequence[str]) -> CheckpointSaved:
        """Put a model where the trainer's checkpoints lie, as one that was trained on `shards`; return its event."""
        prefix = keys.checkpoint_prefix(self.domain, run, step)
        golden = canonical_json(record_golden(model))
        files = (
            *(
                manifests.upload_file(self.blobs, prefix=prefix, name=f"model/{path.name}", path=path)
                for path in sorted(model.iterdir())
            ),
            manifests.upload_bytes(self.blobs, prefix=prefix, name="golden.json", data=golden),
        )
        about = {"run": run, "step": step, "tokens_seen": 0, "loss": 0.0, "shard_sequence": 0}
        checkpoint_id = digest_of(self.domain, run, step)
        committed = manifests.commit(
            self.blobs,
            prefix=prefix,
            kind="checkpoint",
            domain=self.domain,
            work_id=checkpoint_id,
            files=files,
            details={**about, "shards": list(shards)},
        )
        return CheckpointSaved.model_validate(
            {
                **about,
                "domain": self.domain,
                "checkpoint_id": checkpoint_id,
                "manifest_key": committed.key,
                "manifest_sha256": committed.sha256,
            }
        )

    async def _told(self, channel: str) -> list[Event]:
        bus = self._bus()
        await bus.start()
        try:
            return [entry.event async for entry in bus.read(keys.subject(channel, self.domain), follow=False)]
        finally:
            await bus.close()

    def told(self, kind: type[E]) -> list[E]:
        """Return all events of a kind, oldest first."""
        return [event for event in asyncio.run(self._told(kind.channel)) if isinstance(event, kind)]

    def publish(self, *events: Event, documents: Iterable[PublishedDocument] = ()) -> None:
        """Publish events as a service does, and documents as a user does."""

        async def publishing() -> None:
            bus = self._bus()
            await bus.start()
            try:
                for event in events:
                    await bus.publish(event)
                await publish(bus, self.domain, documents)
            finally:
                await bus.close()

        asyncio.run(publishing())

    def verdict(self, evaluation_id: str) -> Verdict:
        """Return what the controller decided in the end."""
        key = keys.verdict_key(self.domain, evaluation_id)

        def stored() -> Verdict | None:
            try:
                return Verdict.model_validate_json(self.blobs.get(key))
            except NotFound:
                return None

        return self.until(stored, what=f"the verdict on evaluation {evaluation_id[:12]}")


def unpassed(verdict: Verdict) -> dict[str, str]:
    """Return the checks that did not pass, by name, and how each ended."""
    return {check.name: check.outcome for check in verdict.checks if check.outcome != "passed"}
