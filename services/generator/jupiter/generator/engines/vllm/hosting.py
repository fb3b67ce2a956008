"""One running vLLM engine and the one set of weights in it: who may compute with it, and how the weights change.

Owns: the admission gate, the drain, the swap in place, the rebuild, and that the old weights are back before anybody is
admitted again after a failure. Does not know: prompts, versions, where weights come from. Everything here belongs to
the engine's own event loop.

A sample is made by exactly one set of weights: whoever computes is admitted with the weights that it names, weights
change only when nobody is, and what had to be cut off at the deadline is made again from its beginning.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from jupiter.errors import Retry
from jupiter.generator.engines.vllm.builds import Build, differences
from jupiter.generator.engines.vllm.canaries import answer_greedily, check_golden, compare
from jupiter.generator.engines.vllm.starting import Starter
from jupiter.generator.engines.vllm.weights import Weights
from jupiter.modeling import NoRoom, UnfitModel, attest_record

__all__ = ["Host"]

log = logging.getLogger(__name__)

RELOAD_S_MAX = 600.0
"""Of reading weights into a running engine: 100 GB from a slow disk."""
STOP_S_MAX = 30.0
"""That an engine has to end by itself, before it is killed."""
ABORT_PAUSE_S = 0.05
"""Between two attempts to cut off what was on its way into the engine when it was told to stop."""
LOOK_S = 0.2
"""How often an engine that owes an answer is looked at."""


class Host:
    """An engine that is started when it is first needed, and again when it died."""

    def __init__(self, starter: Starter, build: Build, *, reload_s_max: float = RELOAD_S_MAX) -> None:
        self.build = build
        self.tenants: set[Weights] = set()
        self.resident: Weights | None = None
        self.used = 0
        self.batches = asyncio.Lock()
        """Held for a batch, so that two that want other weights do not take turns at every sample."""
        self._starter = starter
        self._reload_s_max = reload_s_max
        self._llm: Any = None
        self._ending: asyncio.Task[None] | None = None
        """Of the engine before: until it is done, that engine still holds its memory."""
        self._numbers = itertools.count()
        self._changing = asyncio.Lock()
        self._open = asyncio.Event()
        self._open.set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._computing: set[str] = set()
        self._coming: dict[Weights, asyncio.Task[None]] = {}

    @property
    def started(self) -> bool:
        return self._llm is not None

    async def complete(self, weights: Weights, tokens: list[int], sampling: Any) -> Any:
        """Return vLLM's output for one prompt, made from beginning to end by `weights`."""
        from vllm.v1.engine.exceptions import EngineDeadError

        while True:
            await self._ready(weights)
            llm = self._llm
            try:
                with self._admitted() as request_id:
                    final = None
                    async for output in llm.generate({"prompt_token_ids": tokens}, sampling, request_id):
                        final = output
            except EngineDeadError as error:
                self._lost(llm)
                raise Retry("the vLLM engine died while it generated; it is started again") from error
            if final is not None and final.outputs[0].finish_reason != "abort":
                return final

    async def bring_in(self, weights: Weights, *, prove_again: bool = False) -> None:
        """Have `weights` in the engine, proved. Raises what kept them out; the ones before are in it then.

        Who asks for the same meanwhile shares the outcome. A caller that goes away leaves the change to end by itself:
        half a change serves nobody.
        """
        change = None if prove_again else self._coming.get(weights)
        if change is None:
            change = asyncio.create_task(self._change(weights, prove_again=prove_again))
            self._coming[weights] = change
            change.add_done_callback(lambda ended: self._ended(weights, ended))
        await asyncio.shield(change)

    async def close(self) -> None:
        """Stop the engine; a later use starts it again."""
        async with self._changing:
            self.resident = None
            await self._stop()

    async def _ready(self, weights: Weights) -> None:
        """Return when the gate is open and these weights are in. No pause lies between that and being admitted."""
        while not (self._open.is_set() and self.resident is weights):
            if self._open.is_set():
                await self.bring_in(weights)
            else:
                await self._open.wait()

    @contextmanager
    def _admitted(self) -> Iterator[str]:
        """Count one request as computing."""
        request_id = f"sample-{next(self._numbers)}"
        self._computing.add(request_id)
        self._idle.clear()
        try:
            yield request_id
        finally:
            self._computing.discard(request_id)
            if not self._computing:
                self._idle.set()

    def _ended(self, weights: Weights, change: asyncio.Task[None]) -> None:
        if self._coming.get(weights) is change:
            del self._coming[weights]
        if not change.cancelled():
            change.exception()  # whoever waited has it; without a look asyncio would report it as forgotten

    async def _change(self, weights: Weights, *, prove_again: bool) -> None:
        from vllm.v1.engine.exceptions import EngineDeadError

        async with self._changing:
            if self.resident is weights and not prove_again:
                return
            await self._examine(weights)
            self._open.clear()
            try:
                await self._drain()
                await self._replace(weights)
            except EngineDeadError as error:
                raise Retry(f"the vLLM engine died while {weights.name} was brought in") from error
            finally:
                self._open.set()

    async def _examine(self, weights: Weights) -> None:
        """Raise what can be known before anybody has to wait: files that were damaged here, or too little memory."""
        if weights.proof is not None:
            try:
                await asyncio.to_thread(attest_record, weights.tokenizer, weights.directory, weights.proof.golden)
            except FileNotFoundError as error:
                raise UnfitModel(f"{weights.directory} is gone: {error}") from error
        if self.resident is not None and differences(self.build, weights.build):
            self._starter.check_room(weights, freed_bytes=self._starter.needs_bytes(self.resident))

    async def _drain(self) -> None:
        """Let what is being computed end; at the deadline cut it off, to be made again.

        We count by ourselves: a request on its way to the engine would be computed after the pause, by other weights.
        Then the engine computes again, for the canaries of the weights that are in it may be what comes next.
        """
        from vllm.v1.engine.exceptions import EngineDeadError

        deadline_s = self._starter.own.drain_s_max
        with suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), deadline_s)
        if self._llm is None or not self._computing:
            return
        log.warning(
            "%d samples are not done after %g s: they are cut off and made again", len(self._computing), deadline_s
        )
        llm = self._llm
        try:
            with suppress(EngineDeadError):  # nothing is computed in it any more
                await _told(llm, llm.pause_generation(mode="abort"))
            while self._computing:
                await llm.abort(list(self._computing))
                await asyncio.sleep(ABORT_PAUSE_S)
        finally:
            with suppress(EngineDeadError):
                await _told(llm, llm.resume_generation())

    async def _replace(self, weights: Weights) -> None:
        """Put `weights` in the place of what is there, or put that back."""
        before, self.resident = self.resident, None
        try:
            await self._place(weights, present=before is weights)
        except Exception as error:
            log.warning("%s is not brought in: %s", weights.name, error)
            await self._restore(before if before is not weights else None)
            raise
        self.resident = weights

    async def _restore(self, before: Weights | None) -> None:
        """Bring the old weights back; an engine whose weights nobody can vouch for is stopped."""
        if before is not None and before in self.tenants:
            for attempt in ("in place", "in a new engine"):
                try:
                    await self._examine(before)
                    await self._place(before, present=False)
                except Exception as error:  # noqa: BLE001 - the error that counts is the one that led here
                    log.warning("%s cannot be restored %s: %s", before.name, attempt, error)
                    await self._stop()
                else:
                    self.resident = before
                    return
        await self._stop()

    async def _place(self, weights: Weights, *, present: bool) -> None:
        if self._llm is None or self._llm.errored or differences(self.build, weights.build):
            await self._start(weights)
        elif not present:
            await self._reload(weights)
        await self._prove(weights)

    async def _start(self, weights: Weights) -> None:
        """Start an engine for these weights, in place of any other."""
        await self._stop()
        self.build = weights.build
        self._llm = await asyncio.to_thread(self._starter.start, weights)
        await _told(self._llm, self._llm.update_weight_version(weights.name))
        log.info("a vLLM engine runs with %s", weights.name)

    async def _reload(self, weights: Weights) -> None:
        """Load `weights` over the present ones. When that fails the engine stays paused: nothing runs on a mixture."""
        from vllm.v1.engine.exceptions import EngineDeadError

        llm = self._llm
        await _told(llm, llm.pause_generation(mode="wait", clear_cache=True))
        try:
            async with asyncio.timeout(self._reload_s_max):  # vLLM's own does not hold where it has one worker
                lacks = await _told(llm, llm.collective_rpc("jupiter_reload", args=(str(weights.directory),)))
        except EngineDeadError:
            raise
        except TimeoutError as error:
            await self._stop()  # its answer would yet come, in the place of another
            raise Retry(f"the weights of {weights.directory} were not read in {self._reload_s_max:g} s") from error
        except Exception as error:
            raise UnfitModel(f"the weights of {weights.directory} cannot be loaded in place: {error}") from error
        _check_machine(weights, lacks)
        await _told(llm, llm.update_weight_version(weights.name))
        await _told(llm, llm.reset_prefix_cache())
        await _told(llm, llm.resume_generation())

    async def _prove(self, weights: Weights) -> None:
        """Ask what only these weights answer; the gate is closed, so nobody else computes."""
        proof = weights.proof
        if proof is None:
            return
        await check_golden(self._llm, proof.golden, tolerance=proof.tolerance)
        seen = await answer_greedily(self._llm, proof.golden)
        if proof.own is None:
            proof.own = seen
        else:
            compare(proof.own, seen)

    def _lost(self, llm: Any) -> None:
        """Forget an engine that died."""
        if self._llm is llm:
            self.resident = None
            self._end()

    def _end(self) -> None:
        """Begin to stop the engine."""
        stopping, self._llm = self._llm, None
        self._ending = asyncio.create_task(asyncio.to_thread(stopping.shutdown, STOP_S_MAX))

    async def _stop(self) -> None:
        """Return when no engine is left, not even one that died: what it holds is missing until it is gone."""
        if self._llm is not None:
            self._end()
        if self._ending is not None:
            ending, self._ending = self._ending, None
            await ending


def _check_machine(weights: Weights, lacks: Sequence[tuple[str, str] | None]) -> None:
    """Raise NoRoom or Retry where a worker says what this machine lacks: that is no verdict on the version."""
    for lack in lacks:
        if lack is not None:
            kind, text = lack
            if kind == "memory":
                raise NoRoom(f"{weights.directory} is short of memory while it is loaded in place: {text}")
            raise Retry(f"{weights.directory} cannot be read on this machine: {text}")


async def _told(llm: Any, call: Coroutine[Any, Any, Any]) -> Any:
    """Return what the engine answers to a call. Raises what kept it from that; EngineDeadError where it is lost.

    A worker that was killed fails the call like one that refuses it, some moments before the engine is called dead. So
    only a worker that still answers has refused.
    """
    from vllm.v1.engine.exceptions import EngineDeadError

    try:
        return await _answered(llm, call)
    except EngineDeadError:
        raise
    except Exception:
        try:
            await _answered(llm, llm.collective_rpc("jupiter_answers"))
        except Exception as error:
            raise EngineDeadError from error
        raise


async def _answered(llm: Any, call: Coroutine[Any, Any, Any]) -> Any:
    """Return what a call of the engine returns. Raises EngineDeadError.

    vLLM 0.32.0 tells the requests of an engine that dies, and forgets its calls: they would be waited for for ever.
    """
    calling = asyncio.ensure_future(call)
    try:
        while not calling.done():
            await asyncio.wait([calling], timeout=LOOK_S)
            if not calling.done():
                await llm.check_health()
        return await calling
    finally:
        calling.cancel()
