"""The demo in the foreground: its configuration, its data directory, its view, its two files.

Owns: what `jupiter demo` prints and writes. Does not know: what is waited for (`jupiter.local.demo`).
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from jupiter.cli import Settings
from jupiter.cli.figure import draw
from jupiter.cli.running import follow, log_to_file, stop_on_signals
from jupiter.cli.state import read_state
from jupiter.cli.view import View, choose_view
from jupiter.config import ClusterConfig
from jupiter.config.loading import load_cluster
from jupiter.errors import Conflict, JupiterError
from jupiter.local.cluster import LocalCluster
from jupiter.local.demo import DemoOutcome, run_demo
from jupiter.local.endpoints import only_supervisor

__all__ = ["demo_configuration", "lowered", "run_in_foreground"]

DEMO_SETTINGS = Path("config/demo.yaml")
INTERRUPTED = 130
DEMO_MARKER = ".made-by-jupiter-demo"
# The lock is held; converting the base model anew would only cost time.
KEPT = frozenset({DEMO_MARKER, "supervisor.lock", "cache"})


def demo_configuration(settings: Settings, *, control: str) -> ClusterConfig:
    """Return the configuration of the demo: config/demo.yaml over the defaults, then what the user gave."""
    overrides = dict(assignment.partition("=")[::2] for assignment in settings.assignments)
    overlays = (DEMO_SETTINGS, *settings.overlays)
    return load_cluster(overlays, overrides={"trainer.control": control, **overrides})


def lowered(config: ClusterConfig) -> Iterator[str]:
    """Yield one line per setting that differs from Jupiter's defaults."""
    yield from _differences(config.model_dump(mode="json"), ClusterConfig().model_dump(mode="json"), "")


def _differences(given: Mapping[str, Any], default: Mapping[str, Any], path: str) -> Iterator[str]:
    for key, value in given.items():
        here = f"{path}{key}"
        if isinstance(value, Mapping):
            yield from _differences(value, default[key], f"{here}.")
        elif value != default[key]:
            yield f"{here} = {value} (default {default[key]})"


async def run_in_foreground(config: ClusterConfig, *, rounds_max: int, report_path: Path) -> int:
    """Run the demo, show it, write the report and the figure. Returns the exit code."""
    _empty(config.data_dir)
    log_to_file(config.data_dir / "logs" / "demo.log")
    with choose_view("jupiter demo") as view:
        view.notice("config/demo.yaml sets, for one small machine:")
        for line in lowered(config):
            view.notice(f"    {line}")
        outcome = await _run(config, view, rounds_max=rounds_max)
    if outcome is None:
        print("interrupted; nothing is left running")
        return INTERRUPTED
    figure_path = report_path.with_suffix(".png")
    await asyncio.to_thread(_write, outcome, config, report_path, figure_path)
    print(f"{outcome.summary}\n{report_path} and {figure_path} written; data and logs in {config.data_dir}")
    return 0 if outcome.as_expected else 1


async def _run(config: ClusterConfig, view: View, *, rounds_max: int) -> DemoOutcome | None:
    """Run the cycle until its end, or None when the user stopped it."""
    cluster = LocalCluster(config, notify=lambda notice: view.notice(notice.text))
    stop = stop_on_signals(cluster, view)
    async with cluster:
        following = asyncio.create_task(follow(cluster, view))
        running = asyncio.create_task(run_demo(cluster, config, rounds_max=rounds_max, say=view.notice))
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
            return await _result(running)
        finally:
            for task in (following, running, stopping):
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task


async def _result(running: asyncio.Task[DemoOutcome]) -> DemoOutcome | None:
    if not running.done():
        return None
    try:
        return running.result()
    except TimeoutError as error:
        raise JupiterError(f"the demo stopped: {error}") from error


def _empty(data_dir: Path) -> None:
    """Remove what an earlier demo left, but its converted base model. Raises Conflict when it is not ours to empty."""
    marker = data_dir / DEMO_MARKER
    if data_dir.exists() and not marker.exists() and any(data_dir.iterdir()):
        raise Conflict(
            f"{data_dir} holds something that no demo made, and the demo starts from nothing; "
            "choose another data_dir with JUPITER_DATA_DIR"
        )
    with only_supervisor(data_dir.resolve()):
        marker.touch()
        for child in data_dir.iterdir():
            if child.name in KEPT:
                continue
            if child.is_dir() and not child.is_symlink():
                shutil.rmtree(child)
            else:
                child.unlink()


def _write(outcome: DemoOutcome, config: ClusterConfig, report_path: Path, figure_path: Path) -> None:
    report = {**outcome.report, "as_expected": outcome.as_expected, "settings": list(lowered(config))}
    partial = report_path.with_name(f".{report_path.name}.partial")
    partial.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    partial.replace(report_path)
    draw(read_state(config.data_dir / "pipeline_state.json"), figure_path)
