"""What becomes of the weights where a real engine seldom gets: against a twin of AsyncLLM, in no time."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jupiter.config.sections import VllmSection
from jupiter.errors import Retry
from jupiter.generator.engines import EngineSettings
from jupiter.generator.engines.vllm.hosting import Host
from jupiter.generator.engines.vllm.starting import Starter
from jupiter.generator.engines.vllm.weights import Proof, Weights, read_weights
from jupiter.modeling import GOLDEN_FILE, AttestationError, NoRoom, UnfitModel, read_golden
from tests.vllm.versions import TOLERANCE, Versions

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

DONE_S_MAX = 20.0
LOOK_S = 0.3
"""In which what must not happen would have happened."""


class TwinLLM:
    """AsyncLLM as the host knows it: while it is paused nothing is computed, and a sample names its weights."""

    def __init__(self, weights: Weights) -> None:
        self.holds = weights.directory
        self.errored = False
        self.pauses = 0
        self.reloads: list[Path] = []
        self.outcomes: list[Any] = []
        """Of the next reloads: what the worker returns or raises, or an event that it waits for."""
        self.asked_whether_it_answers = 0
        self.drift = 0.0
        """By which its greedy log-probabilities are off."""
        self.refuses = False
        """To abort."""
        self.hold = asyncio.Event()
        """Set: samples are finished as they come."""
        self.hold.set()
        self.may_end = threading.Event()
        self.may_end.set()
        self._runs = asyncio.Event()
        self._runs.set()
        self._aborted: dict[str, asyncio.Event] = {}

    async def generate(self, prompt: dict[str, list[int]], _sampling: Any, request_id: str) -> AsyncIterator[Any]:
        from vllm.v1.engine.exceptions import EngineDeadError

        if self.errored:
            raise EngineDeadError
        aborted = self._aborted[request_id] = asyncio.Event()
        canary = request_id.startswith("canary")
        made = asyncio.create_task(self._computed(at_once=canary))
        cut_off = asyncio.create_task(aborted.wait())
        await asyncio.wait([made, cut_off], return_when=asyncio.FIRST_COMPLETED)
        made.cancel()
        cut_off.cancel()
        if aborted.is_set():
            yield SimpleNamespace(outputs=[SimpleNamespace(finish_reason="abort")])
        else:
            yield self._answer(prompt["prompt_token_ids"]) if canary else _sample(self.holds.name)

    async def _computed(self, *, at_once: bool) -> None:
        await self._runs.wait()
        if not at_once:
            await self.hold.wait()

    def _answer(self, tokens: Sequence[int]) -> Any:
        """Return what golden.json says of the weights that it holds."""
        for golden in read_golden(self.holds / GOLDEN_FILE).outputs:
            rows = [
                {token: SimpleNamespace(logprob=logprob + self.drift)}
                for token, logprob in zip(golden.tokens, golden.log_probabilities, strict=True)
            ]
            if tuple(tokens) == golden.prompt_tokens:
                return _sample("", token_ids=golden.tokens, logprobs=rows)
            if tuple(tokens) == (*golden.prompt_tokens, *golden.tokens):
                return SimpleNamespace(prompt_logprobs=[None] * len(golden.prompt_tokens) + rows)
        raise AssertionError("nobody else asks for log-probabilities")

    async def pause_generation(self, *, mode: str, **_: Any) -> None:
        self.pauses += 1
        self._runs.clear()
        if mode == "abort":
            await self.abort(list(self._aborted))

    async def resume_generation(self) -> None:
        self._runs.set()

    async def abort(self, request_ids: Sequence[str]) -> None:
        if self.refuses:
            raise ValueError("refused")
        for request_id in request_ids:
            self._aborted[request_id].set()

    async def collective_rpc(self, method: str, args: tuple[str, ...] = ()) -> list[Any]:
        if method == "jupiter_answers":
            self.asked_whether_it_answers += 1
            return [None]
        (directory,) = map(Path, args)
        self.reloads.append(directory)
        outcome = self.outcomes.pop(0) if self.outcomes else None
        if isinstance(outcome, Exception):
            raise outcome
        if isinstance(outcome, asyncio.Event):
            await outcome.wait()
        if outcome is None:
            self.holds = directory
        return [outcome]

    async def update_weight_version(self, name: str) -> None: ...

    async def reset_prefix_cache(self) -> None: ...

    async def check_health(self) -> None: ...

    def shutdown(self, _timeout_s: float) -> None:
        assert self.may_end.wait(DONE_S_MAX)
        self.errored = True


def _sample(text: str, **more: Any) -> Any:
    return SimpleNamespace(outputs=[SimpleNamespace(finish_reason="stop", text=text, **more)])


class TwinStarter(Starter):
    """Starts twins, where memory is as on this machine."""

    def __init__(self, *, drain_s_max: float = 0.05) -> None:
        own = VllmSection(kv_cache_gib=0.001, drain_s_max=drain_s_max)
        super().__init__(EngineSettings(dtype="float32", device="auto", batch_size=8, own=own))
        self.started: list[TwinLLM] = []
        self.faults: list[Exception] = []
        """Raised by the next starts, one each."""

    def start(self, weights: Weights) -> TwinLLM:
        self.check_room(weights)
        if self.faults:
            raise self.faults.pop(0)
        self.started.append(TwinLLM(weights))
        return self.started[-1]


def proved(directory: Path) -> Weights:
    """Return weights that are compared with what was recorded of them."""
    weights = read_weights(directory, model_len_max=1024)
    weights.proof = Proof(golden=read_golden(directory / GOLDEN_FILE), tolerance=TOLERANCE)
    return weights


@pytest.fixture
def a(versions: Versions) -> Weights:
    return proved(versions.a)


@pytest.fixture
def b(versions: Versions, tmp_path: Path) -> Weights:
    """Weights whose files a test may damage."""
    return proved(Path(shutil.copytree(versions.b, tmp_path / "b")))


async def hosting(weights: Weights, *others: Weights, **limits: Any) -> tuple[Host, TwinStarter]:
    """Return a host of these tenants, with `weights` in its engine."""
    starter = TwinStarter()
    host = Host(starter, weights.build, **limits)
    host.tenants = {weights, *others}
    await host.bring_in(weights)
    return host, starter


async def made_by(host: Host, weights: Weights) -> str:
    """Return the name of the version that a sample was made by."""
    async with asyncio.timeout(DONE_S_MAX):
        final = await host.complete(weights, [1, 2, 3], None)
    return str(final.outputs[0].text)


async def test_an_engine_that_died_is_gone_before_memory_is_measured_for_the_next(a: Weights) -> None:
    host, starter = await hosting(a)
    (died,) = starter.started
    died.errored = True
    died.may_end.clear()
    with pytest.raises(Retry, match="died while it generated"):
        await host.complete(a, [1, 2, 3], None)
    again = asyncio.create_task(made_by(host, a))
    await asyncio.sleep(LOOK_S)
    assert starter.started == [died]
    died.may_end.set()
    assert await again == "a"
    assert len(starter.started) == 2


async def test_weights_that_are_proved_again_after_a_cut_off_answer_and_go_on(a: Weights) -> None:
    host, starter = await hosting(a)
    (llm,) = starter.started
    llm.hold.clear()
    making = asyncio.create_task(made_by(host, a))
    await asyncio.sleep(LOOK_S)
    async with asyncio.timeout(DONE_S_MAX):
        await host.bring_in(a, prove_again=True)
    llm.hold.set()
    assert await making == "a"
    assert llm.reloads == []


async def test_an_engine_that_cannot_be_drained_computes_on(a: Weights, b: Weights) -> None:
    host, starter = await hosting(a, b)
    (llm,) = starter.started
    llm.hold.clear()
    making = asyncio.create_task(made_by(host, a))
    await asyncio.sleep(LOOK_S)
    llm.refuses = True
    with pytest.raises(ValueError, match="refused"):
        await host.bring_in(b)
    llm.hold.set()
    assert await making == "a"
    assert await made_by(host, a) == "a"


async def test_files_that_were_damaged_since_are_found_while_the_present_weights_serve_on(
    a: Weights, b: Weights
) -> None:
    host, starter = await hosting(a, b)
    (llm,) = starter.started
    path = b.directory / "model.safetensors"
    damaged = bytearray(path.read_bytes())
    damaged[-1000] ^= 0x40
    path.write_bytes(damaged)
    with pytest.raises(AttestationError, match=r"model\.safetensors .* has sha256"):
        await host.bring_in(b)
    path.unlink()
    with pytest.raises(AttestationError, match=r"model\.safetensors .* is missing"):
        await host.bring_in(b)
    shutil.rmtree(b.directory)
    with pytest.raises(UnfitModel, match="is gone"):
        await host.bring_in(b)
    assert (llm.reloads, llm.pauses) == ([], 0)
    assert host.resident is a
    assert await made_by(host, a) == "a"


@pytest.mark.parametrize(("kind", "error"), [("memory", NoRoom), ("disk", Retry)])
async def test_what_the_machine_lacks_for_a_reload_is_no_verdict(
    a: Weights, b: Weights, kind: str, error: type[Exception]
) -> None:
    host, starter = await hosting(a, b)
    starter.started[0].outcomes = [(kind, "Tried to allocate 2 GiB")]
    with pytest.raises(error, match="Tried to allocate 2 GiB"):
        await host.bring_in(b)
    assert await made_by(host, a) == "a"
    assert await made_by(host, b) == "b"


async def test_a_reload_that_takes_too_long_ends_the_engine_and_is_no_verdict(a: Weights, b: Weights) -> None:
    host, starter = await hosting(a, b, reload_s_max=0.1)
    (llm,) = starter.started
    llm.outcomes = [asyncio.Event()]
    with pytest.raises(Retry, match=r"were not read in 0\.1 s"):
        await host.bring_in(b)
    assert llm.errored
    assert llm.asked_whether_it_answers == 0
    assert await made_by(host, a) == "a"
    assert len(starter.started) == 2


async def test_a_version_too_large_for_this_machine_does_not_cost_the_engine_that_serves(
    a: Weights, b: Weights
) -> None:
    vast = replace(b, build=replace(b.build, shapes={}, parameters=10**15))
    host, starter = await hosting(a, vast)
    (llm,) = starter.started
    with pytest.raises(NoRoom, match=r"needs \d+ MiB, \d+ MiB are free"):
        await host.bring_in(vast)
    assert not llm.errored
    assert llm.pauses == 0
    assert host.resident is a


async def test_returning_weights_are_held_to_their_first_answer(a: Weights, b: Weights) -> None:
    host, starter = await hosting(a, b)
    starter.started[0].drift = 0.015
    await host.bring_in(a, prove_again=True)
    starter.started[0].drift = 0.03
    with pytest.raises(AttestationError, match="these weights answered"):
        await host.bring_in(a, prove_again=True)


async def test_old_weights_that_cannot_come_back_in_place_come_back_in_a_new_engine(a: Weights, b: Weights) -> None:
    host, starter = await hosting(a, b)
    starter.started[0].outcomes = [Exception("b is bad"), Exception("and a is mixed up")]
    with pytest.raises(UnfitModel, match="b is bad"):
        await host.bring_in(b)
    assert starter.started[0].errored
    assert host.resident is a
    assert len(starter.started) == 2
    assert await made_by(host, a) == "a"


async def test_where_no_weights_can_be_vouched_for_no_engine_is_left_and_the_next_use_starts_one(
    a: Weights, b: Weights
) -> None:
    host, starter = await hosting(a, b)
    starter.started[0].outcomes = [Exception("b is bad"), Exception("and a is mixed up")]
    starter.faults = [NoRoom("500 MiB are free"), NoRoom("500 MiB are free")]
    with pytest.raises(UnfitModel, match="b is bad"):
        await host.bring_in(b)
    assert starter.started[0].errored
    assert host.resident is None
    assert not host.started
    with pytest.raises(NoRoom):
        await host.complete(a, [1, 2, 3], None)
    assert await made_by(host, a) == "a"
