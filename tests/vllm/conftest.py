"""Fixtures of the vllm engine's tests: tiny versions with golden outputs, and engines that start once per module.

`make test-vllm` runs them, in an environment of their own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.vllm.versions import Versions


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Threads that spin beside other processes slow each other down tenfold; a tiny model gains nothing from them."""
    os.environ.update(VLLM_CPU_OMP_THREADS_BIND="nobind", OMP_NUM_THREADS="1")


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Versions]:
    """Versions `a` and `b` of one build, and a place to make others."""
    made = Versions(tmp_path_factory.mktemp("versions"))
    yield made
    made.release()
