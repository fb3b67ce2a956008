"""Running the local cluster in the foreground: signals, progress, draining.

Owns: what `jupiter up` does from the first line to the last. Does not know: how processes are kept running
(`jupiter.local`), nor how progress is worded (`progress`).
"""

from __future__ import annotations

import asyncio
import logging
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from jupiter.cli.progress import Processes
from jupiter.cli.view import View, choose_view
from jupiter.config import ClusterConfig
from jupiter.config.loading import load_domain_of
from jupiter.local.cluster import LocalCluster
from jupiter.orchestrator.access import key_header

__all__ = ["follow", "log_to_file", "processes_of", "run_up", "stop_on_signals"]

REFRESH_S = 1.0
STATUS_TIMEOUT_S = 5.0


async def run_up(config: ClusterConfig, *, exit_when_ready: bool) -> int:
    """Start everything, show it until Ctrl-C or SIGTERM, drain. Returns the exit code."""
    description = load_domain_of(config).description.rstrip(".")
    log_to_file(config.data_dir / "logs" / "up.log")
    with choose_view("jupiter up") as view:
        view.notice(f"starting on {config.domain}: {description}; data and logs in {config.data_dir}")
        cluster = LocalCluster(config, notify=lambda notice: view.notice(notice.text))
        stop = stop_on_signals(cluster, view)
        async with cluster:
            following = asyncio.create_task(follow(cluster, view))
            try:
                if await _start(cluster, stop):
                    view.notice(f"everything runs; API and its documentation at {cluster.api_url}/docs")
                    if not exit_when_ready:
                        await stop.wait()
                view.notice("stopping: the services finish what they have in hand")
            finally:
                following.cancel()
                with suppress(asyncio.CancelledError):
                    await following
        view.notice("stopped; the next `jupiter up` goes on from here")
    return 0


async def _start(cluster: LocalCluster, stop: asyncio.Event) -> bool:
    """Start the cluster; False when the user stopped it meanwhile."""
    starting = asyncio.create_task(cluster.start())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if starting.done():
        starting.result()
        return True
    starting.cancel()
    with suppress(asyncio.CancelledError):
        await starting
    return False


def stop_on_signals(cluster: LocalCluster, view: View) -> asyncio.Event:
    """Return an event that Ctrl-C or SIGTERM sets; a second one kills every process."""
    stop = asyncio.Event()

    def received(number: signal.Signals) -> None:
        if stop.is_set():
            view.notice(f"{number.name} again: killing everything")
            cluster.kill()
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, received, number)
    return stop


async def follow(cluster: LocalCluster, view: View) -> None:
    """Show the newest status until cancelled."""
    async with httpx.AsyncClient(headers=key_header(), trust_env=False, timeout=STATUS_TIMEOUT_S) as client:
        while True:
            view.update(await _status(client, cluster), processes_of(cluster))
            await asyncio.sleep(REFRESH_S)


async def _status(client: httpx.AsyncClient, cluster: LocalCluster) -> Any:
    """Return the API's status, or None while the controller starts or restarts."""
    controller = cluster.processes.get("controller")
    if controller is None or controller.state != "ready":
        return None
    try:
        answer = await client.get(f"{cluster.api_url}/v1/status")
    except httpx.HTTPError:
        return None
    return answer.json() if answer.is_success else None


def processes_of(cluster: LocalCluster) -> Processes:
    return Processes({name: (process.state, process.reason) for name, process in cluster.processes.items()})


def log_to_file(path: Path) -> None:
    """Send this process's own log to a file: the terminal belongs to the view."""
    path.parent.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(
        filename=path, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", force=True
    )
