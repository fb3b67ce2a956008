"""Controller and curator never load a model library: they run where there is none."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "vllm")

PROBE = f"""
import importlib, pkgutil, sys
package = importlib.import_module(sys.argv[1])
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(",".join(name for name in {HEAVY!r} if name in sys.modules))
"""


@pytest.mark.parametrize("service", ["jupiter.controller", "jupiter.curator"])
def test_no_module_of_a_slim_service_loads_torch(service: str) -> None:
    probe = subprocess.run([sys.executable, "-c", PROBE, service], capture_output=True, text=True, check=False)
    assert probe.returncode == 0, probe.stderr
    assert probe.stdout.strip() == ""


def test_the_gate_needs_no_server_library() -> None:
    code = "import sys, jupiter.controller.gate; print([m for m in ('nats', 'minio', 'fastapi') if m in sys.modules])"
    probe = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert probe.stdout.strip() == "[]"


def test_help_answers_without_loading_the_service() -> None:
    probe = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "jupiter.controller", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--config" in probe.stdout
    assert "uvicorn" not in probe.stderr
