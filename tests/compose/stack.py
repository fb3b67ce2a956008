"""A cluster of containers: the compose files as they are, by `docker compose` or the script that COMPOSE_PROOF names.

Owns: starting it with small settings, its API, and that nothing is left of it. Does not know: the tests.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import nats

from jupiter.domains import source
from jupiter.records import canonical_json

ROOT = Path(__file__).parents[2]
DOMAIN = "python_stdlib"
PROOF = os.environ.get("COMPOSE_PROOF", "")
BASE_IMAGE = "python:3.11-slim"
"""Of every Dockerfile."""
SERVICES = ("controller", "curator", "evaluator", "generator", "trainer")
UP_S = 1800
CYCLE_S = 3600
SETTINGS = """\
JUPITER_SELF_IMPROVEMENT__EVAL_EVERY_STEPS=2
JUPITER_SELF_IMPROVEMENT__MIN_STEPS_BEFORE_REPLACE=2
JUPITER_SELF_IMPROVEMENT__BENCHMARK_SAMPLES=16
JUPITER_SELF_IMPROVEMENT__GENERAL_SUITE=false
JUPITER_SELF_IMPROVEMENT__MODE=approve
JUPITER_CONTROLLER__SAMPLES_PER_REQUEST=12
JUPITER_CONTROLLER__IN_FLIGHT_REQUESTS_MAX=1
JUPITER_CONTROLLER__LOAD_TIMEOUT_S=900
JUPITER_CONTROLLER__SAMPLING__MAX_NEW_TOKENS=16
JUPITER_TRAINER__TOKENS_PER_STEP=256
JUPITER_TRAINER__SEQUENCE_LENGTH=256
JUPITER_TRAINER__PASSES_PER_SHARD=1
JUPITER_EVALUATOR__CORPUS_QUIET_S=2
OMP_NUM_THREADS=1
"""


def clone(directory: Path) -> Path:
    """Return a copy of this working tree that holds what git tracks and nothing else."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).exists():  # else it is about to be deleted
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, directory / name)
    return directory


@cache
def compose_command() -> tuple[str, ...]:
    """The compose tool itself. Raises RuntimeError where there is none."""
    if PROOF:
        asked = subprocess.run([PROOF, "tool"], check=True, capture_output=True, text=True)
        return tuple(shlex.split(asked.stdout))
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode:
        raise RuntimeError("make test-compose needs `docker compose`, or COMPOSE_PROOF=path of a script in its place")
    return ("docker", "compose")


@dataclass(kw_only=True)
class Stack:
    """One compose project."""

    project: str
    directory: Path
    """Where its secrets and settings lie; those of a clone lie where the files look for them unasked."""
    root: Path = ROOT
    files: Sequence[str] = ()
    """Empty: those that the folder's .env names, or compose.yaml."""
    environment: dict[str, str] = field(default_factory=dict)
    prefix: Sequence[str] = ()
    """Put before every command: where it runs (`node-engine exec NAME`)."""

    @property
    def compose_folder(self) -> Path:
        return self.root / "compose"

    @property
    def secrets(self) -> Path:
        return self.directory / "secrets"

    def make_secrets(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "settings.env").write_text(SETTINGS)
        (self.directory / "models").mkdir(exist_ok=True)
        subprocess.run([sys.executable, "-I", self.compose_folder / "make-secrets", self.secrets], check=True)
        if self.directory != self.compose_folder:
            self.environment |= {
                "SECRETS_DIR": str(self.secrets),
                "SETTINGS_FILE": str(self.directory / "settings.env"),
                "MODELS_DIR": str(self.directory / "models"),
            }

    @property
    def _chosen(self) -> list[str]:
        return [*(part for name in self.files for part in ("-f", str(self.compose_folder / name))), "-p", self.project]

    def compose(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*self.prefix, *compose_command(), *self._chosen, *arguments],
            cwd=self.compose_folder,
            env={**os.environ, "DOCKER_BUILDKIT": "1", "COMPOSE_BAKE": "false", **self.environment},
            check=False,
            capture_output=True,
            text=True,
        )
        if check and done.returncode:
            raise RuntimeError(f"compose {' '.join(arguments)} of {self.project}: {done.stderr[-3000:]}")
        return done

    def up(self) -> None:
        """Build, start, and return when every container is healthy or has ended well."""
        if PROOF and not self.prefix:
            self._up_by_script()
            return
        self.compose("up", "-d", *(() if self.prefix else ("--build",)))
        until(lambda: set(self.states().values()) <= {"healthy", "exited 0"}, what="all healthy", timeout_s=UP_S)

    def _up_by_script(self) -> None:
        """The script gives up where a container is unhealthy for a moment: it is called until all are well."""
        command = [PROOF, "up", *self._chosen, "--timeout", str(UP_S), "compose/"]
        deadline = time.monotonic() + UP_S
        while subprocess.run(command, cwd=self.root, env={**os.environ, **self.environment}, check=False).returncode:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{' '.join(command)} did not reach all healthy within {UP_S} s")

    def states(self) -> dict[str, str]:
        """Each service's health, or how its container ended."""
        listed = self.compose("ps", "-a", "--format", "json").stdout
        rows = [json.loads(line) for line in listed.splitlines() if line.strip()]
        return {
            row["Service"]: row["Health"] or (f"exited {row['ExitCode']}" if row["State"] == "exited" else row["State"])
            for row in rows
        }

    def down(self) -> None:
        self.compose("--profile", "*", "down", "-v", "--remove-orphans")

    def inside(self, service: str, code: str) -> subprocess.CompletedProcess[str]:
        """Run Python in a service's container."""
        return self.compose("exec", "-T", service, "python", "-c", code, check=False)

    def with_volume(self, volume: str, backup: Path, *command: str) -> None:
        """Run a command with one of the project's volumes at /volume and `backup` at /backup."""
        mounts = ("-v", f"{self.project}_{volume}:/volume", "-v", f"{backup}:/backup")
        done = subprocess.run(
            [*self.prefix, "docker", "run", "--rm", *mounts, BASE_IMAGE, *command],
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} beside volume {volume}: {done.stderr[-3000:]}")

    def left(self) -> list[str]:
        """What of the project the engine still knows."""
        mine = f"label=com.docker.compose.project={self.project}"
        found = []
        for kind in (["ps", "-aq"], ["volume", "ls", "-q"], ["network", "ls", "-q"]):
            command = [*self.prefix, "docker", *kind, "--filter", mine]
            found += subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        return found


@dataclass(kw_only=True)
class Api:
    """The controller's API with a key."""

    url: str
    key: str = ""

    def get(self, path: str) -> Any:
        return self._call("GET", path)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        return self._call("POST", path, json=body)

    def _call(self, method: str, path: str, **arguments: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        url = f"{self.url}/v1{path}"
        answer = httpx.request(method, url, headers=headers, timeout=120, trust_env=False, **arguments)
        answer.raise_for_status()
        return answer.json()


def scraped(prometheus: str) -> dict[str, str]:
    """Return what Prometheus reads metrics from: 1 where it got an answer."""
    answer = httpx.get(f"{prometheus}/api/v1/query", params={"query": "up"}, timeout=30, trust_env=False)
    answer.raise_for_status()
    return {one["metric"]["instance"]: one["value"][1] for one in answer.json()["data"]["result"]}


async def publish_documents(url: str, seed: str, *, entries_max: int = 60) -> set[str]:
    """Publish documents as any program may: a NATS client, one JSON a message. Returns their titles."""
    client = await nats.connect(url, nkeys_seed_str=seed, inbox_prefix="_INBOX.publisher")
    titles = set()
    try:
        for document in source(DOMAIN, entries_max=entries_max):
            data = canonical_json(document)
            await client.jetstream().publish(
                f"documents.{DOMAIN}", data, headers={"Nats-Msg-Id": hashlib.sha256(data).hexdigest()}
            )
            titles.add(document.title or "")
    finally:
        await client.close()
    return titles


def publish(url: str, seed: str) -> set[str]:
    return asyncio.run(publish_documents(url, seed))


def until(condition: Callable[[], object], *, what: str, timeout_s: float) -> Any:
    """Return what the condition holds as soon as it is true; a server that is busy is asked again."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            found = condition()
        except httpx.HTTPError:
            found = None
        if found:
            return found
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_s:.0f} s for {what}, in vain")
        time.sleep(2)
