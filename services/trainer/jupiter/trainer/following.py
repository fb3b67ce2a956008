"""A process that torchrun started as another rank than 0: it computes and talks to nobody but rank 0.

Owns: its log, its signals, its probes, its end. Does not know: what it computes (`crew`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext

from jupiter.config import ClusterConfig
from jupiter.config.sections import TelemetrySection
from jupiter.errors import JupiterError
from jupiter.health import probe_app, serving
from jupiter.telemetry import Telemetry, configure_logging
from jupiter.trainer.crew import follow
from jupiter.trainer.parallel import join

__all__ = ["answering_probes", "run_follower"]

log = logging.getLogger(__name__)

TOLD_S_MAX = 10.0
"""After rank 0 has left, until torchrun tells this rank to end too: all nodes are told within a second or two."""
LOOK_S = 0.1


def run_follower(config: ClusterConfig) -> None:
    """Compute rank 0's orders until it leaves.

    Exits non-zero when a rank is lost, or when rank 0's node alone has left: torchrun starts those that stay anew. It
    takes an exit with 0 for the end of the training.
    """
    instance = f"{socket.gethostname()}-rank{os.environ['RANK']}"
    configure_logging(config.telemetry, service="trainer", instance=instance, domain=config.domain)
    met = threading.Event()
    told: list[int] = []
    # One process of a node answers for it: on the first node rank 0 does, on every other one its first rank.
    first_here = int(os.environ["LOCAL_RANK"]) == 0
    try:
        with answering_probes(config.telemetry, met) if first_here else nullcontext():
            world = join(config)
            for number in (signal.SIGTERM, signal.SIGINT):
                # No more than noted: torchrun tells all ranks to stop, and rank 0, which drains, needs this one.
                signal.signal(number, lambda which, _: told.append(which))
            met.set()
            log.info("rank %d of %d is up", world.rank, world.size)
            follow(world, config.trainer)
    except (JupiterError, RuntimeError) as error:
        log.error("rank %s ends, and torchrun starts all ranks anew: %s", os.environ["RANK"], error)  # noqa: TRY400
        # The interpreter would wait for threads of a process group that is broken.
        os._exit(1)
    deadline = time.monotonic() + TOLD_S_MAX
    while not told and time.monotonic() < deadline:
        time.sleep(LOOK_S)
    if not told:
        log.error("rank 0 left this rank alone: torchrun starts anew those that stay")
        sys.exit(1)
    log.info("rank %s is down", os.environ["RANK"])


@contextmanager
def answering_probes(section: TelemetrySection, met: threading.Event) -> Iterator[int]:
    """Serve /healthz, /readyz and /metrics while the block runs; yields the port. Raises ConfigError.

    Ready is who has met the other ranks: one that loses them ends. The server has a thread of its own, for this one
    computes.
    """

    async def refusal() -> str | None:
        return None if met.is_set() else "this rank waits for the others"

    async def serve() -> None:
        async with serving(probe_app(refusal, telemetry=Telemetry()), section) as port:
            listens.set_result(port)
            await asyncio.to_thread(stop.wait)

    def run() -> None:
        try:
            asyncio.run(serve())
        except JupiterError as error:
            listens.set_exception(error)

    listens: Future[int] = Future()
    stop = threading.Event()
    thread = threading.Thread(target=run, name="probes", daemon=True)
    thread.start()
    try:
        yield listens.result()
    finally:
        stop.set()
        thread.join()
