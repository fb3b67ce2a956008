"""The `vllm` engine: vLLM's AsyncLLM embedded in this process, with weights that change while it runs.

Owns: the engine interface, batches, and which engine hosts which version. Does not know: how weights change
(`hosting`), how an engine starts (`starting`), what proves it (`canaries`), what fits into it (`builds`).

An engine holds one set of weights. Versions of one architecture and size share it: `attest`, `activate` and `generate`
have theirs brought in first, in a second or so. A version of another build gets a second engine beside the first where
memory allows; else the first is taken down for it, and requests wait.

Batches take turns, first come, first served; `attest` and `activate` cut in between two samples, so that a promotion
does not wait for a long batch. The rest of that batch is then made by its own weights all the same.

Draws come from each prompt's own seed. vLLM computes whatever is there together, so that a sample's rounding in bf16
depends on its neighbours: a near-tie may fall the other way when a batch is repeated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jupiter.errors import Retry
from jupiter.generator.engines import Completion, EngineSettings, Progress, Prompt
from jupiter.generator.engines.vllm.bridging import LoopThread, Pace
from jupiter.generator.engines.vllm.builds import differences
from jupiter.generator.engines.vllm.hosting import Host
from jupiter.generator.engines.vllm.starting import Starter
from jupiter.generator.engines.vllm.weights import Proof, Weights, read_weights
from jupiter.generator.prompting import Rendered, render
from jupiter.modeling import GOLDEN_FILE, read_golden
from jupiter.records import Sampling, digest_of

__all__ = ["VllmEngine", "create"]

IN_HAND_FACTOR = 2
"""Prompts handed to vLLM, as a multiple of those that it computes together, so that it never waits for the next."""
PROOFS_MAX = 64
"""Versions whose answers are remembered, to be compared when they come back."""


def create(settings: EngineSettings) -> VllmEngine:
    """Raises ConfigError where vLLM is not installed, or is the one for other hardware."""
    return VllmEngine(settings)


class VllmEngine:
    """See `Engine`."""

    def __init__(self, settings: EngineSettings) -> None:
        self._starter = Starter(settings)
        self._batch_size = settings.batch_size
        self._loop = LoopThread()
        self._hosts: list[Host] = []
        self._host_of: dict[Weights, Host] = {}
        self._uses = 0
        self._proofs: dict[str, Proof] = {}

    def load(self, directory: Path) -> Weights:
        weights = read_weights(directory, model_len_max=self._starter.own.max_model_len)
        self._loop.run(self._house(weights))
        return weights

    def attest(self, handle: Weights, directory: Path, *, tolerance: float) -> None:
        golden = read_golden(directory / GOLDEN_FILE)
        handle.proof = self._proof(Proof(golden=golden, tolerance=tolerance))
        self._loop.run(self._bring_in(handle, prove_again=True))

    def activate(self, handle: Weights) -> None:
        self._loop.run(self._bring_in(handle))

    def generate(
        self, handle: Weights, prompts: Sequence[Prompt], *, sampling: Sampling, progress: Progress
    ) -> list[Completion]:
        rendered = [
            render(
                handle.tokenizer,
                prompt,
                new_tokens=sampling.max_new_tokens,
                context_tokens_max=handle.context_tokens_max,
            )
            for prompt in prompts
        ]
        pace = Pace(IN_HAND_FACTOR * self._batch_size)
        making = self._loop.start(self._make(handle, prompts, rendered, sampling, pace))
        try:
            pace.follow(making, progress, self._loop)
        except BaseException:
            making.cancel()
            raise
        return making.result()

    def release(self, handle: Weights) -> None:
        self._loop.run(self._leave(handle))

    def _proof(self, proof: Proof) -> Proof:
        """Return what is remembered of the same record, else `proof`."""
        key = digest_of(proof.golden.model_dump(mode="json"))
        known = self._proofs.pop(key, proof)
        self._proofs[key] = known
        if len(self._proofs) > PROOFS_MAX:
            del self._proofs[next(iter(self._proofs))]
        return known

    async def _house(self, weights: Weights) -> None:
        """Choose the engine that will hold these weights."""
        host = self._host_for(weights)
        host.tenants.add(weights)
        self._host_of[weights] = host

    def _host_for(self, weights: Weights) -> Host:
        fitting = [host for host in self._hosts if not differences(host.build, weights.build)]
        if fitting:
            return fitting[0]
        promised = sum(max(map(self._starter.needs_bytes, host.tenants)) for host in self._hosts if not host.started)
        beside = self._starter.own.second_engine and self._starter.has_room(weights, promised_bytes=promised)
        if self._hosts and not beside:
            return min(self._hosts, key=lambda host: host.used)
        host = Host(self._starter, weights.build)
        self._hosts.append(host)
        return host

    async def _bring_in(self, weights: Weights, *, prove_again: bool = False) -> None:
        await self._used(weights).bring_in(weights, prove_again=prove_again)

    async def _leave(self, weights: Weights) -> None:
        host = self._host_of.pop(weights)
        host.tenants.discard(weights)
        if not host.tenants:
            self._hosts.remove(host)
            await host.close()

    def _used(self, weights: Weights) -> Host:
        host = self._host_of[weights]
        self._uses += 1
        host.used = self._uses
        return host

    async def _make(
        self,
        weights: Weights,
        prompts: Sequence[Prompt],
        rendered: Sequence[Rendered],
        sampling: Sampling,
        pace: Pace,
    ) -> list[Completion]:
        """Make every completion, in the order of the prompts."""
        host = self._used(weights)

        async def one(prompt: Prompt, question: Rendered) -> Completion:
            async with pace.begun() as tokens:
                made = await host.complete(weights, question.tokens, _asked(prompt, sampling, weights))
                completion = _completion(question, made)
                tokens.append(completion.tokens)
            return completion

        async with host.batches:
            tasks = [asyncio.create_task(one(*pair)) for pair in zip(prompts, rendered, strict=True)]
            try:
                return await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)


def _asked(prompt: Prompt, sampling: Sampling, weights: Weights) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_tokens=sampling.max_new_tokens,
        seed=prompt.seed % (1 << 63) if sampling.temperature else None,
        stop=list(prompt.stop) or None,
        stop_token_ids=sorted(weights.end_tokens),
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def _completion(question: Rendered, made: Any) -> Completion:
    (answer,) = made.outputs
    if answer.finish_reason not in ("stop", "length"):
        raise Retry(f"vLLM ended a sample with {answer.finish_reason!r}: {answer.stop_reason}")
    return Completion(
        prompt=question.text, text=answer.text, tokens=len(answer.token_ids), finish_reason=answer.finish_reason
    )
