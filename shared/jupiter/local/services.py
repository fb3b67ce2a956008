"""The five services as child processes of one machine.

Owns: their names, how many of each, which share of the cores each gets, and their environment.
Does not know: how a process is kept running (`processes`), nor what a service does.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from jupiter.config import ClusterConfig
from jupiter.config.loading import settings_as_environment
from jupiter.local.endpoints import HOST
from jupiter.local.processes import ProcessSpec

__all__ = ["HEAVY", "SERVICES", "instances", "service_spec"]

SERVICES = ("controller", "curator", "generator", "trainer", "evaluator")
# They load a model and compute; the compute lease lets them take turns.
HEAVY = frozenset({"generator", "trainer", "evaluator"})
PROBE_TIMEOUT_S = 12.0
# Twice what a service itself allows for draining (`service.DRAIN_S` + `EXIT_GRACE_S`): the machine may be loaded.
DRAIN_S = 40.0


def instances(config: ClusterConfig, services: Sequence[str] = SERVICES) -> dict[str, str]:
    """Return the service of each process name, in the order in which they are started."""
    named = {}
    for service in services:
        count = config.local.generators if service == "generator" else 1
        for number in range(1, count + 1):
            named[service if count == 1 else f"{service}-{number}"] = service
    return named


def service_spec(
    name: str, service: str, *, config: ClusterConfig, ports: Mapping[str, int], extra: Mapping[str, str]
) -> ProcessSpec:
    """Return how to run one instance; `extra` is added to its environment last."""
    url = f"http://{HOST}:{ports[name]}/readyz"

    async def ready() -> str | None:
        async with httpx.AsyncClient(trust_env=False, timeout=PROBE_TIMEOUT_S) as client:
            try:
                answer = await client.get(url)
            except httpx.HTTPError:
                return "it does not answer yet"
        if answer.status_code == httpx.codes.OK:
            return None
        body: Mapping[str, Any] = answer.json()
        return str(body.get("reason", f"it answers {answer.status_code}"))

    return ProcessSpec(
        name=name,
        command=(sys.executable, "-m", f"jupiter.{service}"),
        environment={
            **settings_as_environment(config),
            "JUPITER_INSTANCE": name,
            "JUPITER_TELEMETRY__HOST": HOST,
            "JUPITER_TELEMETRY__PORT": str(ports[name]),
            **thread_environment(service, config),
            **OFFLINE,
            **extra,
        },
        ready=ready,
        drain_s=DRAIN_S,
    )


# Nothing is fetched from a model hub and nobody is told that we run.
OFFLINE = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "PYTHONUNBUFFERED": "1",
}


def threads_of(service: str, config: ClusterConfig) -> int:
    """Return how many cores a service may compute on.

    With one compute slot, a heavy service has all cores during its turn. Without the lease they divide them. The
    light ones never need more than one.
    """
    if service not in HEAVY:
        return 1
    if config.local.threads:
        return config.local.threads
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    sharing = config.local.compute_slots or len(HEAVY) + config.local.generators - 1
    return max(1, cores // sharing)


def thread_environment(service: str, config: ClusterConfig) -> dict[str, str]:
    threads = str(threads_of(service, config))
    return {
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "RAYON_NUM_THREADS": threads,
        "TOKENIZERS_PARALLELISM": "false",
        # A thread pool that is not computing must not spin: the cores belong to whoever holds the lease.
        "OMP_WAIT_POLICY": "PASSIVE",
        "KMP_BLOCKTIME": "0",
        # Within its turn a service has the cores to itself, so a short spin between two operators pays: training steps
        # of 3.5 s instead of 4.3 s. It ends long before the next turn.
        "GOMP_SPINCOUNT": "100000",
        # glibc maps each large tensor anew and gives the top of its heap back after every step unless told to keep
        # them, and the kernel clears each page again: a third of a step's time (docs/decisions/0008).
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    }
