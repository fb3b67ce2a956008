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
from jupiter.config.loading import assigned, load_cluster
from jupiter.config.secrecy import without_secrets
from jupiter.errors import Conflict
from jupiter.local.cluster import LocalCluster
from jupiter.local.demo import run_demo
from jupiter.local.endpoints import only_supervisor
from jupiter.local.outcome import DemoOutcome

__all__ = ["DEMO_MARKER", "demo_configuration", "empty", "lowered", "run_in_foreground"]

DEMO_SETTINGS = Path("config/demo.yaml")
STATE_FILE = "pipeline_state.json"
INTERRUPTED = 130
DEMO_MARKER = ".made-by-jupiter-demo"
# The lock is held; converting the base model anew would only cost time.
KEPT = frozenset({DEMO_MARKER, "supervisor.lock", "cache"})


def demo_configuration(settings: Settings, *, control: str) -> ClusterConfig:
    """Return the configuration of the demo: config/demo.yaml over the defaults, then what the user gave."""
    overrides = assigned(settings.assignments)
    overlays = (DEMO_SETTINGS, *settings.overlays)
    config = load_cluster(overlays, overrides={"trainer.control": control, **overrides})
    own = load_cluster((DEMO_SETTINGS,), {})
    if config.data_dir != own.data_dir and config.controller.state_file == own.controller.state_file:
        # Who moves the data moves the state with it, unless they say where it shall lie.
        moved = {"state_file": config.data_dir / STATE_FILE}
        config = config.model_copy(update={"controller": config.controller.model_copy(update=moved)})
    return config


def lowered(config: ClusterConfig) -> Iterator[str]:
    """Yield one line per setting that differs from Jupiter's defaults."""
    yield from _differences(without_secrets(config), without_secrets(ClusterConfig()), "")


def _differences(given: Mapping[str, Any], default: Mapping[str, Any], path: str) -> Iterator[str]:
    for key, value in given.items():
        here = f"{path}{key}"
        if isinstance(value, Mapping):
            yield from _differences(value, default[key], f"{here}.")
        elif value != default[key]:
            yield f"{here} = {value} (default {default[key]})"


async def run_in_foreground(config: ClusterConfig, *, rounds_max: int, report_path: Path) -> int:
    """Run the demo, show it, write the report and the figure. Returns the exit code."""
    empty(config.data_dir)
    figure_path = report_path.with_suffix(".png")
    # A run that does not come to its end must not be taken for an earlier one.
    for path in (report_path, figure_path):
        path.unlink(missing_ok=True)
    log_to_file(config.data_dir / "logs" / "demo.log")
    with choose_view("jupiter demo") as view:
        view.notice("config/demo.yaml sets, for one small machine:")
        for line in lowered(config):
            view.notice(f"    {line}")
        outcome = await _run(config, view, rounds_max=rounds_max)
    if outcome is None:
        print("interrupted; nothing is left running")
        return INTERRUPTED
    written = await asyncio.to_thread(_write, outcome, config, report_path, figure_path)
    print(f"{outcome.summary}\nwritten: {', '.join(map(str, written))}; data and logs in {config.data_dir}")
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
            return running.result() if running.done() else None
        finally:
            for task in (following, running, stopping):
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task


def empty(data_dir: Path) -> None:
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


def _write(outcome: DemoOutcome, config: ClusterConfig, report_path: Path, figure_path: Path) -> list[Path]:
    """Write the report, and the figure where the run came as far as a state to draw. Returns what was written."""
    report = {**outcome.report, "settings": list(lowered(config))}
    partial = report_path.with_name(f".{report_path.name}.partial")
    partial.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    partial.replace(report_path)
    state = config.data_dir / STATE_FILE
    if not state.exists():
        return [report_path]
    draw(read_state(state), figure_path)
    return [report_path, figure_path]
