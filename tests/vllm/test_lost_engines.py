"""An engine that is killed while it changes its weights, as the kernel does where memory is short.

The version is not to blame, so nobody says UnfitModel: it is asked for again, and serves. vLLM itself leaves whoever
waits for a reload without an answer, and says the same of a worker that is gone and of one that refuses.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from jupiter.errors import Retry
from jupiter.generator.engines.vllm.weights import Weights
from jupiter.records import Sampling
from tests.vllm.versions import Tenants, Versions, engine_processes, prompts, worker_processes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

LONG = Sampling(temperature=0, max_new_tokens=300)
DRAIN_S_MAX = 3.0
WAIT_S_MAX = 1200.0
"""Long, because an engine comes up in half a minute of a core of its own, and tests run beside others."""
REACHED_S = 5.0
"""After which an idle engine that was told to reload does so."""
VICTIMS = {"engine": engine_processes, "worker": worker_processes}


@pytest.fixture(scope="module")
def engine(versions: Versions) -> Tenants:
    return versions.engine(drain_s_max=DRAIN_S_MAX)


@pytest.fixture(scope="module")
def a(versions: Versions, engine: Tenants) -> Weights:
    """The version that serves."""
    return engine.serve(versions.a)


@pytest.fixture
def aside() -> Iterator[ThreadPoolExecutor]:
    """A thread for what blocks until a process is killed."""
    with ThreadPoolExecutor() as pool:
        yield pool


def only(victim: str) -> psutil.Process:
    (process,) = VICTIMS[victim]()
    return process


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_S_MAX
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(("victim", "cut_off"), [("worker", False), ("engine", True)])
def test_killed_while_samples_are_drained_it_comes_back_with_the_new_weights(
    victim: str,
    cut_off: bool,
    versions: Versions,
    engine: Tenants,
    a: Weights,
    aside: ThreadPoolExecutor,
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine.engine.activate(a)
    b = engine.load(versions.b)
    host = engine.engine._host_of[a]
    caplog.set_level(logging.WARNING)
    generating = aside.submit(engine.texts, a, prompts(12), LONG)
    until(lambda: host._computing)
    only(victim).suspend()  # whatever it does now is still undone when it is killed
    attesting = aside.submit(engine.attest, b)
    until(lambda: not host._open.is_set())
    if cut_off:
        until(lambda: "cut off and made again" in caplog.text)
    only(victim).kill()
    attesting.result(WAIT_S_MAX)
    with pytest.raises(Retry, match="died while it generated"):
        generating.result(WAIT_S_MAX)
    assert ("cut off and made again" in caplog.text) == cut_off
    assert host.resident is b
    assert engine.texts(b, prompts(4)) != engine.texts(a, prompts(4))
    engine.release(b)


@pytest.mark.parametrize("victim", VICTIMS)
def test_killed_in_mid_reload_the_old_weights_are_back_and_the_new_ones_serve_at_the_next_try(
    victim: str, versions: Versions, engine: Tenants, a: Weights, aside: ThreadPoolExecutor
) -> None:
    expected_a = engine.texts(a, prompts(4))
    name = f"slow_disk_{victim}"
    b = engine.serve(versions.copy(versions.b, name))
    expected_b = engine.texts(b, prompts(4))
    engine.engine.activate(a)
    weights = b.directory / "model.safetensors"
    whole = weights.read_bytes()
    weights.unlink()
    os.mkfifo(weights)  # whoever reads it waits: the disk is slow
    proof, b.proof = b.proof, None  # the file was looked at while it was whole
    activating = aside.submit(engine.engine.activate, b)
    time.sleep(REACHED_S)
    assert not activating.done()
    only(victim).kill()
    with pytest.raises(Retry, match=f"died while {name} was brought in"):
        activating.result(WAIT_S_MAX)
    weights.unlink()
    weights.write_bytes(whole)
    b.proof = proof
    assert engine.texts(a, prompts(4)) == expected_a
    engine.engine.activate(b)
    assert engine.texts(b, prompts(4)) == expected_b
    engine.release(b)


@pytest.mark.parametrize("victim", VICTIMS)
def test_killed_while_it_is_proved_and_again_while_it_starts_it_is_no_bad_version(
    victim: str, engine: Tenants, a: Weights, aside: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    expected = engine.texts(a, prompts(4))
    only(victim).suspend()
    proving = aside.submit(engine.attest, a)
    until(lambda: not engine.engine._host_of[a]._open.is_set())
    only(victim).kill()
    with pytest.raises(Retry, match="died while a was brought in"):
        proving.result(WAIT_S_MAX)
    until(lambda: not VICTIMS[victim]())
    proving = aside.submit(engine.attest, a)
    until(VICTIMS[victim])
    only(victim).kill()
    proving.result(WAIT_S_MAX)
    assert "start 1 of a vLLM engine for a failed" in caplog.text
    assert engine.texts(a, prompts(4)) == expected
